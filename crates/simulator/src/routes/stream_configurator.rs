//! What the stream-configurator asks for.

use axum::Router;

use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
}
