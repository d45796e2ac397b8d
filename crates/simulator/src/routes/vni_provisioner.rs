//! What the vni-provisioner asks for.

use axum::Router;

use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
}
