//! Limits for hosts and addresses: how many deliveries may be under way to each, so that no receiver holds up another
//! (SPEC 7), whatever names and ports it uses. A delivery that may not start waits in the queue; a short wait for a
//! host that answers is spent here, if that takes no place from others.
//!
//! Does not send, and forgets everything at a restart.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::host::Host;

mod host;
#[cfg(test)]
mod tests;

/// The maximum number of deliveries under way to one host.
const PER_HOST: u8 = 4;
/// The number of idle hosts that are remembered.
const REMEMBERED: usize = 1024;
/// The longest wait here; after it the delivery waits in the queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limits of all hosts that this process delivers to.
#[derive(Clone, Debug)]
pub(super) struct HostLimits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: HostBounds,
    all: Mutex<AllHosts>,
}

#[derive(Clone, Copy, Debug)]
struct HostBounds {
    total: usize,
    per_host: u8,
    scale: f64,
}

#[derive(Debug, Default)]
struct AllHosts {
    hosts: HashMap<String, Host>,
    /// Deliveries under way to each address.
    addresses: HashMap<IpAddr, usize>,
    /// Deliveries under way to hosts that fail.
    probes: usize,
}

/// The answer to a delivery that wants to start.
#[derive(Debug)]
pub(super) enum HostAdmission {
    Go(HostPermit),
    /// Not before this wait.
    Later(Duration),
    /// The process stops.
    Stopped,
}

/// The permit for one delivery; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct HostPermit {
    hosts: HostLimits,
    host: String,
    address: Option<IpAddr>,
    began: Instant,
    is_probe: bool,
    _seat: OwnedSemaphorePermit,
}

/// What a delivery learned about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostFeedback {
    /// It answers, with any status that is no failure of the host.
    Answers,
    /// It is down, or asks for a pause (`Retry-After`).
    Fails { asked: Option<Duration> },
}

/// A place in the line of deliveries that wait here for a host.
struct LinePlace {
    hosts: HostLimits,
    host: String,
    seats: Arc<Semaphore>,
}

impl HostLimits {
    /// Limits for at most `total` deliveries; waits for failing hosts are multiplied by `scale`.
    pub(super) fn new(total: usize, scale: f64) -> Self {
        let per_host = u8::try_from(total.max(1)).map_or(PER_HOST, |total| total.min(PER_HOST));
        let bounds = HostBounds { total, per_host, scale };
        Self(Arc::new(Shared { bounds, all: Mutex::default() }))
    }

    /// Asks for a permit for `host`. `jitter` is a random number from 0 to 1; `stop` ends a wait.
    pub(super) async fn admit(&self, host: &str, jitter: f64, stop: &CancellationToken) -> HostAdmission {
        let place = match self.check(host, jitter) {
            Ok(admission) => return admission,
            Err(place) => place,
        };
        let seat = stop.run_until_cancelled(timeout(PATIENCE, Arc::clone(&place.seats).acquire_owned())).await;
        drop(place);
        match seat {
            None => HostAdmission::Stopped,
            Some(Ok(Ok(seat))) => self.admit_after_wait(host, seat, jitter),
            Some(Ok(Err(_)) | Err(_)) => self.give_up_wait(host, jitter),
        }
    }

    /// Admits a delivery or sends it away, unless it is worth waiting here.
    fn check(&self, name: &str, jitter: f64) -> Result<HostAdmission, LinePlace> {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let share = all.share(name, now, bounds);
        let probes = all.probes;
        let host = all.host(name, now, bounds);
        let is_probe = host.is_failing();
        if host.rests(now) || is_probe && (host.under_way(bounds) > 0 || probes >= (bounds.total / 2).max(1)) {
            return Ok(HostAdmission::Later(host.wait(now, jitter, bounds)));
        }
        if host.is_slow() && host.under_way(bounds) > 0 {
            return Ok(HostAdmission::Later(host.wait(now, jitter, bounds)));
        }
        if let Ok(seat) = Arc::clone(&host.seats).try_acquire_owned() {
            all.probes += usize::from(is_probe);
            return Ok(HostAdmission::Go(self.permit(name, seat, is_probe)));
        }
        if !host.is_worth_waiting_for() || host.under_way(bounds) + host.line >= share {
            return Ok(HostAdmission::Later(host.wait(now, jitter, bounds)));
        }
        host.line += 1;
        Err(LinePlace { hosts: self.clone(), host: name.to_owned(), seats: Arc::clone(&host.seats) })
    }

    /// Admits a delivery after a wait, unless the host failed meanwhile.
    fn admit_after_wait(&self, name: &str, seat: OwnedSemaphorePermit, jitter: f64) -> HostAdmission {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let host = all.host(name, now, bounds);
        if host.rests(now) || host.is_failing() {
            return HostAdmission::Later(host.wait(now, jitter, bounds));
        }
        HostAdmission::Go(self.permit(name, seat, false))
    }

    fn give_up_wait(&self, name: &str, jitter: f64) -> HostAdmission {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let host = all.host(name, now, bounds);
        host.record_wait();
        HostAdmission::Later(host.wait(now, jitter, bounds))
    }

    fn permit(&self, name: &str, seat: OwnedSemaphorePermit, is_probe: bool) -> HostPermit {
        HostPermit {
            hosts: self.clone(),
            host: name.to_owned(),
            address: None,
            began: Instant::now(),
            is_probe,
            _seat: seat,
        }
    }

    fn lock(&self) -> MutexGuard<'_, AllHosts> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostBounds {
    /// The maximum number of deliveries under way to one address: half of all places, and a quarter more for hosts
    /// there that have none under way, so that neither other addresses nor other hosts of this one wait for slow ones.
    fn per_address(self, is_first_of_its_host: bool) -> usize {
        let quarters = if is_first_of_its_host { 3 } else { 2 };
        (self.total * quarters / 4).max(1)
    }
}

/// The address that a limit is for: of IPv6 the /64 network, because its owner has all addresses in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

impl AllHosts {
    fn host(&mut self, name: &str, now: Instant, bounds: HostBounds) -> &mut Host {
        if !self.hosts.contains_key(name) {
            self.forget(bounds);
        }
        let host = self.hosts.entry(name.to_owned()).or_insert_with(|| Host::new(now, bounds));
        host.used = now;
        host
    }

    /// The number of places, running and in line, that a host may hold: the fewer hosts are active, the more.
    fn share(&self, name: &str, now: Instant, bounds: HostBounds) -> usize {
        let others = self.hosts.iter().filter(|(other, host)| *other != name && host.is_active(now, bounds)).count();
        (bounds.total / (others + 1)).max(bounds.per_host.into())
    }

    /// Forgets the idle host that was used longest ago.
    fn forget(&mut self, bounds: HostBounds) {
        if self.hosts.len() < REMEMBERED {
            return;
        }
        let idle = self.hosts.iter().filter(|(_, host)| host.is_idle(bounds));
        let oldest = idle.min_by_key(|(_, host)| host.used).map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.hosts.remove(&name);
        }
    }
}

impl HostPermit {
    /// Counts the delivery for the address that it connects to; returns a wait if that address is at its limit.
    pub(super) fn use_address(&mut self, address: IpAddr, jitter: f64) -> Result<(), Duration> {
        let (mut all, now, bounds) = (self.hosts.lock(), Instant::now(), self.hosts.0.bounds);
        let address = network(address);
        let under_way = all.addresses.get(&address).copied().unwrap_or_default();
        let host = all.host(&self.host, now, bounds);
        if under_way >= bounds.per_address(host.under_way(bounds) <= 1) {
            return Err(host.wait(now, jitter, bounds));
        }
        all.addresses.insert(address, under_way + 1);
        self.address = Some(address);
        Ok(())
    }

    /// Ends the delivery and applies what it learned about the host.
    pub(super) fn end(self, feedback: HostFeedback) {
        let (mut all, now, bounds) = (self.hosts.lock(), Instant::now(), self.hosts.0.bounds);
        let took = now.duration_since(self.began);
        let host = all.host(&self.host, now, bounds);
        match feedback {
            HostFeedback::Answers => host.record_answer(took),
            HostFeedback::Fails { asked } => host.record_failure(now, took, asked, bounds),
        }
        // Dropping the permit takes the lock again.
        drop(all);
    }
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        let mut all = self.hosts.lock();
        all.probes -= usize::from(self.is_probe);
        let Some(address) = self.address else { return };
        if let Some(under_way) = all.addresses.get_mut(&address) {
            *under_way -= 1;
            if *under_way == 0 {
                all.addresses.remove(&address);
            }
        }
    }
}

impl Drop for LinePlace {
    fn drop(&mut self) {
        if let Some(host) = self.hosts.lock().hosts.get_mut(&self.host) {
            host.line -= 1;
        }
    }
}
