output "cluster" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = aws_eks_cluster.this.name
}

output "bucket" {
  description = "Replaces sentinode-data in k8s/base/platform/settings.yaml."
  value       = aws_s3_bucket.data.bucket
}

output "settings" {
  description = "The ConfigMap sentinode-settings of an overlay."
  value = merge(
    { AWS_REGION = var.region },
    { for prefix in ["sources", "data", "runs", "registry", "slides", "scores"] :
    "SENTINODE_${upper(prefix)}" => "s3://${aws_s3_bucket.data.bucket}/${prefix}" },
  )
}

output "images" {
  description = "Repositories for k8s/components/images."
  value       = { for name, repository in aws_ecr_repository.image : name => repository.repository_url }
}

output "roles" {
  description = "Role ARNs for k8s/components/irsa and the external secrets."
  value       = { for name in ["batch", "endpoint", "secrets"] : name => aws_iam_role.pods[name].arn }
}
