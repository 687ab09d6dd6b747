# All releases depend on the administrators' rights as well: made after these, and above all removed before them. Else `terraform destroy` may take
# away its own way in first.
resource "helm_release" "kuberay" {
  name             = "kuberay-operator"
  repository       = "https://ray-project.github.io/kuberay-helm"
  chart            = "kuberay-operator"
  version          = var.kuberay_version
  namespace        = "kuberay-system"
  create_namespace = true
  atomic           = true

  # The chart gives none: the endpoint's pods would take its place on a full node.
  set {
    name  = "priorityClassName"
    value = "system-cluster-critical"
  }

  depends_on = [aws_eks_node_group.this, aws_eks_addon.other, aws_eks_access_policy_association.administrator]
}

# Lists of a chart are replaced as a whole, so its own defaults stand here too. Without the taint of spot nodes, neither feature discovery
# nor the device plugin would run there: no GPU of theirs would ever be had.
locals {
  gpu_tolerations = [for taint in ["nvidia.com/gpu", "sentinode/spot"] : { key = taint, operator = "Exists", effect = "NoSchedule" }]
  control_plane_tolerations = [
    for role in ["master", "control-plane"] : { key = "node-role.kubernetes.io/${role}", operator = "Equal", value = "", effect = "NoSchedule" }
  ]
}

# The image of the GPU nodes has driver and container toolkit; the operator adds device plugin and metrics.
resource "helm_release" "gpu" {
  count            = anytrue([for group in var.node_groups : group.gpu]) ? 1 : 0
  name             = "gpu-operator"
  repository       = "https://helm.ngc.nvidia.com/nvidia"
  chart            = "gpu-operator"
  version          = var.gpu_operator_version
  namespace        = "gpu-operator"
  create_namespace = true
  atomic           = true
  timeout          = 900

  values = [yamlencode({
    driver     = { enabled = false }
    toolkit    = { enabled = false }
    daemonsets = { tolerations = local.gpu_tolerations }
    node-feature-discovery = {
      worker = { tolerations = concat(local.gpu_tolerations, local.control_plane_tolerations) }
    }
  })]

  depends_on = [aws_eks_node_group.this, aws_eks_addon.other, aws_eks_access_policy_association.administrator]
}

resource "helm_release" "autoscaler" {
  name       = "cluster-autoscaler"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = "9.46.6"
  namespace  = "kube-system"
  atomic     = true

  values = [yamlencode({
    awsRegion     = var.region
    autoDiscovery = { clusterName = aws_eks_cluster.this.name }
    rbac = {
      serviceAccount = {
        name        = "cluster-autoscaler"
        annotations = { "eks.amazonaws.com/role-arn" = aws_iam_role.pods["autoscaler"].arn }
      }
    }
  })]

  depends_on = [aws_eks_node_group.this, aws_eks_addon.other, aws_eks_access_policy_association.administrator]
}
