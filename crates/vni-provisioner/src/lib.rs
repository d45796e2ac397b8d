//! vni.provision: creates a virtual network interface and syncs its routing table.
