# For trying out: some 10 dollars a day while idle, GPUs only while a job asks for them.
environment  = "small"
zones        = 2
nat_gateways = 1

node_groups = {
  system = { instance_types = ["m7i.large"], minimum = 2, maximum = 3 }
  cpu    = { instance_types = ["m7i.2xlarge"], minimum = 0, maximum = 4, disk_gib = 300 }
  spot   = { instance_types = ["m7i.2xlarge", "m6i.2xlarge", "m7a.2xlarge"], minimum = 0, maximum = 4, disk_gib = 300, spot = true }
  gpu    = { instance_types = ["g6.2xlarge"], minimum = 0, maximum = 1, disk_gib = 200, gpu = true }
}
