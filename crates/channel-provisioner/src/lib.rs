//! channel.provision: creates a web messaging channel.
