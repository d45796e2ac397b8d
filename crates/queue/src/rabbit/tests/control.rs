//! What is told over the fleet's exchange, who hears it, and how its end is noticed.

use super::*;

async fn talk(rig: &Rig, url: &str, keys: &[&str]) -> crate::rabbit::ControlChannel {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    soon(rig.queue_by(url, TopologyMode::Declare).control_channel(&keys)).await.unwrap()
}

#[tokio::test]
async fn who_listens_to_a_key_hears_it_also_from_itself_and_nobody_else_does() {
    on_broker(async |rig: Rig| {
        let mut one = talk(&rig, &rig.url, &["*.a", "ask"]).await;
        let mut other = talk(&rig, &rig.url, &["*.b", "ask"]).await;
        one.publish("here.a", "first".to_owned()).await.unwrap();
        one.publish("ask", "second".to_owned()).await.unwrap();
        assert_eq!(soon(one.next()).await.unwrap(), "first");
        assert_eq!(soon(one.next()).await.unwrap(), "second");
        assert_eq!(soon(other.next()).await.unwrap(), "second");
        assert!(!one.is_lost());
        other.close().await;
        one.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_conversation_whose_connection_breaks_ends_and_another_one_begins() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let url = proxy.url(&rig);
        let mut control = talk(&rig, &url, &["ask"]).await;
        proxy.cut();
        assert!(soon(control.next()).await.is_err());
        assert!(control.is_lost());
        let mut again = talk(&rig, &url, &["ask"]).await;
        again.publish("ask", "anybody?".to_owned()).await.unwrap();
        assert_eq!(soon(again.next()).await.unwrap(), "anybody?");
    })
    .await;
}

#[tokio::test]
async fn without_its_exchange_it_does_not_begin_and_says_why() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![event("a")]).await.unwrap();
        let (connection, channel) = rig.channel().await;
        let control = format!("{}.control", rig.prefix);
        channel.exchange_delete(control.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        let refused = soon(queue.control_channel(&["ask".to_owned()])).await.unwrap_err();
        assert!(refused.contains("control"), "{refused}");
        assert_eq!(queue.health(), Health::default(), "the work knows nothing of it");
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}
