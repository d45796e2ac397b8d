//! What the scan-monitor asks for.

use axum::Router;

use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
}
