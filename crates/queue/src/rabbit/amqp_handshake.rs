//! The identity of a broker, which it sends before the login: the server properties of `Connection.Start`.

use lapin::{
    protocol::{AMQPClass, connection::AMQPMethod, parse_class},
    types::{AMQPValue, FieldTable},
};

/// `Connection.Start`: class 10, method 10.
const START: &[u8] = &[0, 10, 0, 10];

/// The identity of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// The product, e.g. `RabbitMQ`.
    pub product: String,
    /// The version, e.g. `3.13.7`.
    pub version: String,
    /// The cluster's name; empty if it has none.
    pub cluster: String,
}

impl BrokerIdentity {
    /// Reads the identity in the payload of a method frame; `None` if it is another method.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        if !payload.starts_with(START) {
            return None;
        }
        let (_, class) = parse_class(payload).ok()?;
        let AMQPClass::Connection(AMQPMethod::Start(start)) = class else { return None };
        let text = |name: &str| text(&start.server_properties, name);
        Some(Self { product: text("product"), version: text("version"), cluster: text("cluster_name") })
    }
}

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        Some(AMQPValue::ShortString(text)) => text.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(text: &str) -> Vec<u8> {
        [u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
    }

    fn start(properties: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(name, value): &(&str, &str)| {
            [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), b"S", &long(value)].concat()
        };
        let table: Vec<u8> = properties.iter().flat_map(entry).collect();
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        [START, &[0, 9], &length, &table, &long("PLAIN"), &long("en_US")].concat()
    }

    #[test]
    fn product_version_and_cluster_are_read() {
        let payload = start(&[("cluster_name", "rabbit@one"), ("product", "RabbitMQ"), ("version", "3.13.7")]);
        let read = BrokerIdentity::read(&payload).unwrap();
        assert_eq!((&*read.product, &*read.version, &*read.cluster), ("RabbitMQ", "3.13.7", "rabbit@one"));
        assert_eq!(BrokerIdentity::read(&start(&[("product", "Other")])).unwrap().version, "");
    }

    #[test]
    fn another_method_or_half_of_it_is_no_greeting() {
        assert_eq!(BrokerIdentity::read(&[0, 10, 0, 30, 0, 0, 0]), None);
        let payload = start(&[("version", "3.13.7")]);
        for kept in 0..payload.len() {
            assert_eq!(BrokerIdentity::read(&payload[..kept]), None, "{kept}");
        }
    }
}
