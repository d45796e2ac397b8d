//! `genfleet topology`: prints every exchange, queue and binding, as JSON or as definitions that a broker can import.

use std::process::ExitCode;

use genfleet_core::{
    options::ConfigError,
    queue::topology::{check_prefix, topology},
};

use serde_json::Value;

use crate::terminal;

/// The topology and its format.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// First part of the name of every exchange and queue
    #[arg(long, env = "GENFLEET_QUEUE_PREFIX", default_value = "genfleet", value_name = "NAME")]
    queue_prefix: String,

    /// Print definitions of this virtual host, for `rabbitmqctl import_definitions`; the virtual host has to exist
    #[arg(long, value_name = "NAME")]
    vhost: Option<String>,

    /// Print JSON; the output is JSON in any case
    #[arg(long)]
    json: bool,
}

/// Prints the topology.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    check_prefix(&options.queue_prefix).map_err(|error| ConfigError::new(error.to_string()))?;
    let mut topology = serde_json::to_value(topology(&options.queue_prefix))?;
    if let Some(vhost) = &options.vhost {
        place(&mut topology, vhost);
    }
    terminal::print_line(serde_json::to_string_pretty(&topology)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts every exchange, queue and binding into `vhost`.
fn place(topology: &mut Value, vhost: &str) {
    let lists = topology.as_object_mut().into_iter().flat_map(|lists| lists.values_mut());
    for object in lists.filter_map(Value::as_array_mut).flatten() {
        object["vhost"] = vhost.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_for_a_virtual_host_name_it_in_every_object() {
        let mut definitions = serde_json::to_value(topology("genfleet")).unwrap();
        place(&mut definitions, "calls");
        for list in ["exchanges", "queues", "bindings"] {
            let objects = definitions[list].as_array().unwrap();
            assert!(!objects.is_empty() && objects.iter().all(|object| object["vhost"] == "calls"), "{list}");
        }
    }
}
