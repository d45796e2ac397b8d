//! The routes, one file for each worker, and the answer for an unknown path.
//!
//! The pipeline handles tokens, limits, faults and the record, so a route only reads its request and calls the
//! organisation.

pub(crate) mod body;
mod channel_provisioner;
pub(crate) mod control;
mod integrations;
mod media;
mod other_cdns;
mod purger;
mod scan_monitor;
mod stream_configurator;
mod token;
mod vni_provisioner;
pub(crate) mod web_deployments;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;

use crate::errors::ApiError;
use crate::pipeline;
use crate::world::Shared;

/// Returns all routes: those of the platform behind the pipeline, and the control routes.
pub(crate) fn all(shared: Shared) -> Router {
    token::routes()
        .merge(purger::routes())
        .merge(stream_configurator::routes())
        .merge(integrations::routes())
        .merge(channel_provisioner::routes())
        .merge(vni_provisioner::routes())
        .merge(web_deployments::routes())
        .merge(scan_monitor::routes())
        .merge(media::routes())
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED))
        .layer(from_fn_with_state(shared.clone(), pipeline::pass))
        .merge(control::routes())
        .merge(media::files())
        .layer(from_fn_with_state(shared.clone(), other_cdns::pass))
        .with_state(shared)
}
