use proptest::prelude::*;

use super::*;
use crate::payload::Payload;

const OURS: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
const OTHERS: &str = "00000000-0000-0000-0000-000000000001";

fn plan() -> InterfacePlan {
    let payload = json!({
        "name": "new", "organizationId": OURS, "localIp": "10.0.50.1", "remoteIp": "203.0.113.10",
        "subnetCidr": "10.0.50.0/24", "dnsServers": ["8.8.8.8"], "routingTableId": "rt-1",
    });
    serde_json::from_value::<Payload>(payload).unwrap().plan().unwrap()
}

fn entity(id: &str, change: &Value) -> Value {
    let mut entity = json!({
        "id": id, "name": "new", "organizationId": OURS, "localIp": "10.0.50.1", "remoteIp": "203.0.113.10",
        "subnetCidr": "10.0.50.0/24", "routingTableId": "rt-1", "state": "active",
    });
    for (member, value) in change.as_object().unwrap() {
        entity[member] = value.clone();
    }
    entity
}

fn inventory(entities: &[Value]) -> Inventory {
    Inventory::of(entities, entities.len() as u64, plan().organization_id)
}

#[test]
fn an_interface_is_the_same_where_organisation_name_address_subnet_and_table_are() {
    for (change, is_same) in [
        (json!({}), true),
        (json!({"remoteIp": "203.0.113.99", "dnsServers": [], "description": "old"}), true),
        (json!({"organizationId": null}), true),
        (json!({"organizationId": OURS.to_uppercase()}), true),
        (json!({"organizationId": OTHERS}), false),
        (json!({"organizationId": "no uuid"}), false),
        (json!({"name": "New"}), false),
        (json!({"localIp": "10.0.50.2"}), false),
        (json!({"localIp": null}), false),
        (json!({"subnetCidr": "10.0.0.0/16"}), false),
        (json!({"routingTableId": "rt-2"}), false),
        (json!({"id": null}), false),
        (json!({"id": ""}), false),
    ] {
        let found = inventory(&[entity("i", &change)]);
        assert_eq!(found.identical(&plan()), is_same.then_some("i"), "{change}");
    }
}

#[test]
fn what_is_in_the_way_is_named_and_what_belongs_to_others_is_not() {
    let apart = json!({"localIp": "10.9.9.9", "remoteIp": "203.0.113.1", "subnetCidr": "10.9.9.0/24"});
    let with = |change: Value| {
        let mut entity = entity("other", &apart);
        entity["name"] = "existing".into();
        change.as_object().unwrap().iter().for_each(|(member, value)| entity[member] = value.clone());
        entity
    };
    for (change, summary) in [
        (json!({}), None),
        (json!({"localIp": "10.0.50.1"}), Some("is the local IP of")),
        (json!({"remoteIp": "10.0.50.1"}), Some("is the remote IP of")),
        (json!({"subnetCidr": "10.0.50.0/24"}), Some("overlaps 10.0.50.0/24")),
        (json!({"subnetCidr": "10.0.0.0/16"}), Some("overlaps 10.0.0.0/16")),
        (json!({"subnetCidr": "10.0.50.128/25"}), Some("overlaps 10.0.50.128/25")),
        (json!({"subnetCidr": "10.0.50.77/24"}), Some("overlaps 10.0.50.0/24")),
        (json!({"subnetCidr": "10.0.51.0/24"}), None),
        (json!({"subnetCidr": "2001:db8::/32"}), None),
        (json!({"subnetCidr": 7, "localIp": []}), None),
        (json!({"localIp": "10.0.50.1", "organizationId": OTHERS}), None),
        (json!({"localIp": "10.0.50.1", "organizationId": null}), Some("is the local IP of")),
    ] {
        let conflict = inventory(&[with(change.clone())]).conflict(&plan());
        match (&conflict, summary) {
            (None, None) => {}
            (Some(error), Some(summary)) => {
                assert_eq!(error.code, "ip_conflict");
                assert!(
                    error.message.contains(summary) && error.message.contains("interface other"),
                    "{}",
                    error.message
                );
                assert_eq!(error.details["conflictsWith"]["id"], "other");
            }
            _ => panic!("{change}: {conflict:?}"),
        }
    }
}

#[test]
fn what_cannot_be_read_whole_is_not_taken_for_nothing_in_the_way() {
    let apart = json!({"name": "existing", "localIp": "10.9.9.9", "subnetCidr": "10.9.9.0/24"});
    let with = |change: Value| {
        let mut entity = entity("other", &apart);
        change.as_object().unwrap().iter().for_each(|(member, value)| entity[member] = value.clone());
        entity
    };
    for (change, summary) in [
        (json!({}), None),
        (json!({"subnetCidr": null}), None),
        (json!({"subnetCidr": "", "localIp": null, "remoteIp": null}), None),
        (json!({"subnetCidr": "2001:db8::/32", "localIp": "2001:db8::1"}), None),
        (json!({"subnetCidr": "none of ours", "organizationId": OTHERS}), None),
        (
            json!({"subnetCidr": "10.0.50.0/33"}),
            Some("subnetCidr of interface other (\"existing\") is no subnet: \"10.0.50.0/33\""),
        ),
        (json!({"subnetCidr": 7}), Some("subnetCidr of interface other (\"existing\") is no subnet: 7")),
        (json!({"localIp": []}), Some("localIp of interface other (\"existing\") is no IP address: []")),
        (
            json!({"remoteIp": "10.0.50"}),
            Some("remoteIp of interface other (\"existing\") is no IP address: \"10.0.50\""),
        ),
    ] {
        let found = inventory(&[with(change.clone())]).unreadable();
        assert_eq!(found.is_some(), summary.is_some(), "{change}: {found:?}");
        if let (Some(error), Some(summary)) = (found, summary) {
            assert_eq!((error.class, error.code), (ErrorClass::Transient, "unexpected_response"));
            assert!(error.message.contains(summary), "{}", error.message);
        }
    }
    assert!(inventory(&[Value::Null]).unreadable().is_some(), "what is no connection at all");
    let shown = Inventory::of(&[with(json!({}))], 2, plan().organization_id);
    assert!(shown.unreadable().is_some_and(|error| error.message.contains("there are 2 connections and shows 1")));
}

#[test]
fn all_of_ours_are_counted_whatever_the_server_shows() {
    let ours = [entity("a", &json!({})), entity("b", &json!({})), entity("b", &json!({}))];
    let foreign = entity("c", &json!({"organizationId": OTHERS}));
    let count = |entities: &[Value], total: u64| Inventory::of(entities, total, plan().organization_id).count();
    assert_eq!(count(&ours[..2], 2), 2);
    assert_eq!(count(&ours[..2], 50), 50, "more than it shows");
    assert_eq!(count(&ours, 2), 2, "one shown twice");
    assert_eq!(count(&ours[..2], 0), 2, "a total that is wrong");
    assert_eq!(count(&[ours[0].clone(), foreign], 2), 1, "a filter that does not filter");
}

proptest! {
    #[test]
    fn networks_overlap_where_one_begins_inside_the_other(
        one in any::<u32>(), flips in any::<u32>(), sparse in any::<u32>(), (short, long) in (0_u8..=32, 0_u8..=32),
    ) {
        // Neighbours are more telling than networks far apart.
        let other = one ^ (flips & sparse & (sparse >> 7));
        let net = |address: u32, prefix| Ipv4Net::new(address.into(), prefix).unwrap().trunc();
        let range = |net: Ipv4Net| (u32::from(net.network()), u32::from(net.broadcast()));
        let (a, b) = (net(one, short), net(other, long));
        let ((a_first, a_last), (b_first, b_last)) = (range(a), range(b));
        let naive = a_first <= b_last && b_first <= a_last;
        prop_assert_eq!((overlap(a, b), overlap(b, a)), (naive, naive), "{} {}", a, b);
    }
}
