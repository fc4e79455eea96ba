"""What `jobs.doctor` looks at: this machine, the Ray cluster and its nodes."""
