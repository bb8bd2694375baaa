"""What is wrong with this machine, this installation and these bundles, found out before anyone is served."""
