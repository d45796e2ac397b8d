//! The broker for tests: one that all tests share, or a private one that can be stopped, killed and restarted.

use tokio::sync::OnceCell;

use crate::{
    node::{Node, Plugins},
    skip,
};

/// The shared broker's URL, set by `tests/run` (or by hand, to use any broker).
const URL_VARIABLE: &str = "GENFLEET_TEST_AMQP_URL";

static SHARED: OnceCell<Broker> = OnceCell::const_new();

/// A broker.
pub struct Broker {
    url: String,
    /// `None` if it was started outside.
    node: Option<Node>,
}

impl Broker {
    /// Returns the broker that all tests share; each test uses its own [`crate::Prefix`].
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::given_or_own).await
    }

    /// Starts a private broker, which takes about 6 s. `None` if none is installed: the test is then reported as skipped
    /// and returns (`let Some(mut broker) = Broker::private().await else { return };`).
    pub async fn private() -> Option<Self> {
        if !Node::available() {
            skip("it needs a RabbitMQ of its own, and none is installed here");
            return None;
        }
        Some(Self::own(Plugins::None).await)
    }

    /// As [`private`](Self::private), with the management API.
    pub async fn private_with_management() -> Option<Self> {
        if !Node::available() {
            skip("it needs a RabbitMQ of its own with the management API, and none is installed here");
            return None;
        }
        Some(Self::own(Plugins::Management).await)
    }

    /// Starts a private cluster of three nodes, which takes about 20 s. `None` as for [`private`](Self::private).
    pub async fn cluster() -> Option<[Self; 3]> {
        let first = Self::private().await?;
        let node = first.node.as_ref().expect(NOT_OURS);
        let (second, third) = (node.start_beside().await, node.start_beside().await);
        // They are dropped in this order, and the first node, which the others need, last.
        let joined = |node: Node| Self { url: node.url().to_owned(), node: Some(node) };
        Some([joined(third), joined(second), first])
    }

    /// The URL of its management API, with user and password.
    pub fn management_url(&self) -> &str {
        self.node.as_ref().and_then(Node::management).expect("Broker::private_with_management() has one")
    }

    /// The AMQP URL with user, password and virtual host.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the broker as an operator would (SIGTERM), and waits for its end. Its data is kept.
    pub async fn stop(&mut self) {
        self.node_mut().stop().await;
    }

    /// Kills the broker (SIGKILL), as a crash would. Its data is kept.
    pub async fn kill(&mut self) {
        self.node_mut().kill().await;
    }

    /// Starts a stopped or killed broker again, with its data and its port, and waits until it answers.
    pub async fn start(&mut self) {
        self.node_mut().start().await;
    }

    /// Runs `rabbitmqctl` and returns its output. To block all publishers:
    /// `ctl(&["set_disk_free_limit", "100000GB"])`; to unblock them: `ctl(&["set_disk_free_limit", "50MB"])`.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let node = self.node.as_ref().expect(NOT_OURS);
        node.ctl(arguments).await
    }

    async fn given_or_own() -> Self {
        if let Some(url) = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty()) {
            return Self { url, node: None };
        }
        assert!(Node::available(), "no RabbitMQ to test with: tests/run installs and starts it");
        Self::own(Plugins::None).await
    }

    async fn own(plugins: Plugins) -> Self {
        let node = Node::start_new(plugins).await;
        Self { url: node.url().to_owned(), node: Some(node) }
    }

    fn node_mut(&mut self) -> &mut Node {
        self.node.as_mut().expect(NOT_OURS)
    }
}

const NOT_OURS: &str = "this broker is shared: take Broker::private() to stop it or to turn its knobs";
