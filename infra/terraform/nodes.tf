data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# Nodes may join the cluster and pull images. They have no access to the buckets: pods have, by their own roles.
resource "aws_iam_role" "node" {
  name               = "${local.name}-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryReadOnly",
  ])
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

resource "aws_launch_template" "node" {
  for_each = var.node_groups
  name     = "${local.name}-${each.key}"

  # Pods cannot reach the node's own credentials: the answer does not travel one hop further.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = each.value.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  # Local NVMe disks, where the type has them, become the node's ephemeral storage: the shard cache lies there.
  user_data = base64encode(<<-EOT
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="//"

    --//
    Content-Type: application/node.eks.aws

    ---
    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      instance:
        localStorage:
          strategy: RAID0
    --//--
  EOT
  )

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${local.name}-${each.key}" }
  }
}

resource "aws_eks_node_group" "this" {
  for_each        = var.node_groups
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = aws_subnet.private[*].id
  instance_types  = each.value.instance_types
  ami_type        = each.value.gpu ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"

  # By the third the cluster autoscaler knows that a node's GPU is still to come, and starts no second node for the pod that waits for it.
  labels = merge(
    { "sentinode/capacity" = each.value.spot ? "spot" : "on-demand" },
    each.value.gpu ? { "sentinode/accelerator" = "gpu", "k8s.amazonaws.com/accelerator" = "nvidia" } : {},
  )

  scaling_config {
    min_size     = each.value.minimum
    desired_size = each.value.minimum
    max_size     = each.value.maximum
  }

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  update_config {
    max_unavailable = 1
  }

  dynamic "taint" {
    for_each = each.value.gpu ? ["nvidia.com/gpu"] : []
    content {
      key    = taint.value
      value  = "present"
      effect = "NO_SCHEDULE"
    }
  }

  dynamic "taint" {
    for_each = each.value.spot ? ["sentinode/spot"] : []
    content {
      key    = taint.value
      value  = "true"
      effect = "NO_SCHEDULE"
    }
  }

  # The cluster autoscaler finds its groups by the first two. Of an empty group it knows CPUs, memory, GPUs, labels and taints, but no
  # disk, and every pod asks for some: without the third no group that stands at 0 would ever grow. 85 %: the kubelet keeps the rest.
  tags = {
    "k8s.io/cluster-autoscaler/enabled"                                   = "true"
    "k8s.io/cluster-autoscaler/${local.name}"                             = "owned"
    "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage" = "${floor(each.value.disk_gib * 0.85)}Gi"
  }

  # The autoscaler moves it; Terraform must not move it back.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network]
}
