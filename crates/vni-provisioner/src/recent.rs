//! The interfaces that this process created recently, and that reads may not show yet.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{api::READ_LAG, inventory::Inventory, payload::InterfacePlan};

/// Recently created interfaces, by organisation.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<HashMap<Uuid, Vec<RecentOrder>>>);

/// A recently created interface.
#[derive(Clone, Debug)]
struct RecentOrder {
    plan: InterfacePlan,
    /// Time from which every read shows it, if it was created.
    until: Instant,
}

impl Recent {
    /// Records that `plan` is about to be created. This is recorded first, because the request may still arrive if the
    /// attempt is interrupted.
    pub(crate) fn record_order(&self, plan: &InterfacePlan) {
        self.note(plan, Instant::now() + 2 * READ_LAG);
    }

    /// Records that the interface was created, or may have been.
    pub(crate) fn record_possible_creation(&self, plan: &InterfacePlan) {
        self.note(plan, Instant::now() + READ_LAG);
    }

    /// Records that the interface was not created, or is deleted.
    pub(crate) fn record_absent(&self, plan: &InterfacePlan) {
        let mut all = self.lock();
        if let Some(ordered) = all.get_mut(&plan.organization_id) {
            ordered.retain(|one| !one.plan.is_same(plan));
        }
    }

    /// Returns the interfaces that may exist although `inventory` does not show them, and until when that is possible.
    pub(crate) fn missing_in(
        &self,
        inventory: &Inventory,
        organization_id: Uuid,
    ) -> Option<(Vec<InterfacePlan>, Instant)> {
        let now = Instant::now();
        let mut all = self.lock();
        let ordered = all.get_mut(&organization_id)?;
        ordered.retain(|one| now < one.until);
        let missing = || ordered.iter().filter(|one| inventory.identical(&one.plan).is_none());
        let until = missing().map(|one| one.until).max()?;
        Some((missing().map(|one| one.plan.clone()).collect(), until))
    }

    fn note(&self, plan: &InterfacePlan, until: Instant) {
        let mut all = self.lock();
        let now = Instant::now();
        all.retain(|_, ordered| {
            ordered.retain(|one| now < one.until && !one.plan.is_same(plan));
            !ordered.is_empty()
        });
        all.entry(plan.organization_id).or_default().push(RecentOrder { plan: plan.clone(), until });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<RecentOrder>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
