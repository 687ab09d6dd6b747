# For a hospital group: three zones that fail alone, GPUs on demand for scoring and on spot for training.
environment  = "production"
zones        = 3
nat_gateways = 3
log_days     = 365

node_groups = {
  system   = { instance_types = ["m7i.xlarge"], minimum = 3, maximum = 6 }
  cpu      = { instance_types = ["m7i.4xlarge"], minimum = 3, maximum = 24, disk_gib = 300 }
  spot     = { instance_types = ["m7i.4xlarge", "m6i.4xlarge", "m7a.4xlarge"], minimum = 0, maximum = 24, disk_gib = 300, spot = true }
  gpu      = { instance_types = ["g6e.4xlarge"], minimum = 0, maximum = 8, disk_gib = 200, gpu = true }
  gpu-spot = { instance_types = ["g6e.4xlarge", "g6.4xlarge"], minimum = 0, maximum = 16, disk_gib = 200, gpu = true, spot = true }
}
