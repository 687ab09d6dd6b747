variable "region" {
  description = "AWS region of everything."
  type        = string
  default     = "eu-central-1"
}

variable "environment" {
  description = "Names the cluster, the buckets and the roles: sentinode-<environment>."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.environment))
    error_message = "Lower-case letters, digits and dashes, at most 21 characters, a letter first."
  }
}

variable "kubernetes_version" {
  description = "Of the control plane and the nodes."
  type        = string
  default     = "1.33"
}

variable "vpc_cidr" {
  description = "Private addresses of the cluster."
  type        = string
  default     = "10.40.0.0/16"
}

variable "zones" {
  description = "How many availability zones."
  type        = number
  default     = 3

  validation {
    condition     = var.zones >= 2 && var.zones <= 4
    error_message = "EKS wants at least two zones; four are enough."
  }
}

variable "nat_gateways" {
  description = "One is cheap and stops with its zone; one for each zone does not."
  type        = number
  default     = 1

  validation {
    condition     = var.nat_gateways >= 1 && var.nat_gateways <= 4
    error_message = "At least one, at most one for each zone."
  }
}

variable "api_cidrs" {
  description = "Networks that may reach the Kubernetes API from outside. Empty: from within the VPC only."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.api_cidrs, "0.0.0.0/0")
    error_message = "The API of a cluster with patients' slides is not open to everybody: name your networks."
  }
}

variable "administrators" {
  description = "ARNs of the roles that administer the cluster."
  type        = list(string)

  validation {
    condition     = length(var.administrators) > 0
    error_message = "Without an administrator nobody can enter the cluster."
  }
}

variable "node_groups" {
  description = "Groups of nodes by name. `gpu` takes the GPU image, a label and a taint; `spot` a label and a taint. A batch worker asks for 50 GiB of disk, one with a GPU for 100."
  type = map(object({
    instance_types = list(string)
    minimum        = number
    maximum        = number
    disk_gib       = optional(number, 100)
    gpu            = optional(bool, false)
    spot           = optional(bool, false)
  }))
}

variable "log_days" {
  description = "How long logs of the control plane are kept."
  type        = number
  default     = 90
}

variable "run_days" {
  description = "After how many days checkpoints and logs of runs move to a cheaper class."
  type        = number
  default     = 60
}

variable "kuberay_version" {
  description = "Of the operator's chart."
  type        = string
  default     = "1.7.0"
}

variable "gpu_operator_version" {
  description = "Of NVIDIA's chart; installed where a group has GPUs."
  type        = string
  default     = "v25.3.0"
}
