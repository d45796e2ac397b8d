//! How many deliveries are under way to one host and to one address, and when none is, so that no receiver holds up
//! another (SPEC 7), under however many ports and names it goes. What may not go now waits in the queue. A short wait for a host that answers is spent here, where that takes no place from
//! others.
//!
//! Does not send, and remembers nothing over a restart.

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

/// Deliveries under way to one host.
const PER_HOST: u8 = 4;
/// Hosts remembered, of those that nothing is under way to.
const REMEMBERED: usize = 1024;
/// How long a delivery waits here for its turn; then it waits in the queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// All hosts that this process delivers to.
#[derive(Clone, Debug)]
pub struct Hosts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    all: Mutex<All>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    total: usize,
    per_host: u8,
    scale: f64,
}

#[derive(Debug, Default)]
struct All {
    hosts: HashMap<String, Host>,
    /// Deliveries under way to each address.
    addresses: HashMap<IpAddr, usize>,
    /// Deliveries under way to hosts that fail.
    probes: usize,
}

/// Whether a delivery may go.
#[derive(Debug)]
pub enum Entered {
    /// It may.
    Go(Turn),
    /// Not now: in so long.
    Later(Duration),
    /// The wait was cut short.
    Stopped,
}

/// The right to deliver to one host; ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    hosts: Hosts,
    host: String,
    address: Option<IpAddr>,
    began: Instant,
    is_probe: bool,
    _seat: OwnedSemaphorePermit,
}

/// What a delivery says about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It answers, whatever it answers.
    Answers,
    /// It is down, or asks for a pause.
    Fails {
        /// `Retry-After`.
        asked: Option<Duration>,
    },
}

enum Look {
    Go(Turn),
    Later(Duration),
    InLine(Place),
}

/// A place in the line before a host.
struct Place {
    hosts: Hosts,
    host: String,
    seats: Arc<Semaphore>,
}

impl Hosts {
    /// With at most `total` deliveries under way, and waits for hosts that fail times `scale`.
    pub fn new(total: usize, scale: f64) -> Self {
        let per_host = u8::try_from(total.max(1)).map_or(PER_HOST, |total| total.min(PER_HOST));
        let bounds = Bounds { total, per_host, scale };
        Self(Arc::new(Shared { bounds, all: Mutex::default() }))
    }

    /// Asks for a turn at `host`. `jitter` is 0–1, chosen by chance; `stop` cuts a wait short.
    pub async fn enter(&self, host: &str, jitter: f64, stop: &CancellationToken) -> Entered {
        let place = match self.look(host, jitter) {
            Look::Go(turn) => return Entered::Go(turn),
            Look::Later(wait) => return Entered::Later(wait),
            Look::InLine(place) => place,
        };
        let seat = stop.run_until_cancelled(timeout(PATIENCE, Arc::clone(&place.seats).acquire_owned())).await;
        drop(place);
        match seat {
            None => Entered::Stopped,
            Some(Ok(Ok(seat))) => self.seated(host, seat, jitter),
            Some(Ok(Err(_)) | Err(_)) => self.waited_in_vain(host, jitter),
        }
    }

    fn look(&self, name: &str, jitter: f64) -> Look {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let share = all.share(name, now, bounds);
        let probes = all.probes;
        let host = all.host(name, now, bounds);
        let is_probe = host.is_failing();
        if host.rests(now) || is_probe && (host.under_way(bounds) > 0 || probes >= (bounds.total / 2).max(1)) {
            return Look::Later(host.later(now, jitter, bounds));
        }
        if host.is_slow() && host.under_way(bounds) > 0 {
            return Look::Later(host.later(now, jitter, bounds));
        }
        if let Ok(seat) = Arc::clone(&host.seats).try_acquire_owned() {
            all.probes += usize::from(is_probe);
            return Look::Go(self.turn(name, seat, is_probe));
        }
        if !host.is_worth_waiting_for() || host.under_way(bounds) + host.line >= share {
            return Look::Later(host.later(now, jitter, bounds));
        }
        host.line += 1;
        Look::InLine(Place { hosts: self.clone(), host: name.to_owned(), seats: Arc::clone(&host.seats) })
    }

    /// After a wait in line: the host may have failed meanwhile.
    fn seated(&self, name: &str, seat: OwnedSemaphorePermit, jitter: f64) -> Entered {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let host = all.host(name, now, bounds);
        if host.rests(now) || host.is_failing() {
            return Entered::Later(host.later(now, jitter, bounds));
        }
        Entered::Go(self.turn(name, seat, false))
    }

    fn waited_in_vain(&self, name: &str, jitter: f64) -> Entered {
        let (mut all, now, bounds) = (self.lock(), Instant::now(), self.0.bounds);
        let host = all.host(name, now, bounds);
        host.kept_waiting();
        Entered::Later(host.later(now, jitter, bounds))
    }

    fn turn(&self, name: &str, seat: OwnedSemaphorePermit, is_probe: bool) -> Turn {
        Turn { hosts: self.clone(), host: name.to_owned(), address: None, began: Instant::now(), is_probe, _seat: seat }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bounds {
    /// What goes to one address at once: half of all places, and a quarter more for hosts there that have nothing under
    /// way, so that neither other addresses nor other hosts of this one wait for those that are slow.
    fn of_address(self, is_first_of_its_host: bool) -> usize {
        let quarters = if is_first_of_its_host { 3 } else { 2 };
        (self.total * quarters / 4).max(1)
    }
}

/// What counts as one address: of IPv6 the 64 bits that name a network, in which whoever has one has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

impl All {
    fn host(&mut self, name: &str, now: Instant, bounds: Bounds) -> &mut Host {
        if !self.hosts.contains_key(name) {
            self.forget(bounds);
        }
        let host = self.hosts.entry(name.to_owned()).or_insert_with(|| Host::new(now, bounds));
        host.used = now;
        host
    }

    /// What a host may hold of all places, running and in line: the fewer hosts there are, the more.
    fn share(&self, name: &str, now: Instant, bounds: Bounds) -> usize {
        let others = self.hosts.iter().filter(|(other, host)| *other != name && host.is_active(now, bounds)).count();
        (bounds.total / (others + 1)).max(bounds.per_host.into())
    }

    /// Of hosts that nothing is under way to, the one that was used longest ago.
    fn forget(&mut self, bounds: Bounds) {
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

impl Turn {
    /// Says where the delivery connects to; not now where that address has enough, but in so long.
    pub fn connects_to(&mut self, address: IpAddr, jitter: f64) -> Result<(), Duration> {
        let (mut all, now, bounds) = (self.hosts.lock(), Instant::now(), self.hosts.0.bounds);
        let address = network(address);
        let under_way = all.addresses.get(&address).copied().unwrap_or_default();
        let host = all.host(&self.host, now, bounds);
        if under_way >= bounds.of_address(host.under_way(bounds) <= 1) {
            return Err(host.later(now, jitter, bounds));
        }
        all.addresses.insert(address, under_way + 1);
        self.address = Some(address);
        Ok(())
    }

    /// The delivery ended.
    pub fn ended(self, fate: Fate) {
        let (mut all, now, bounds) = (self.hosts.lock(), Instant::now(), self.hosts.0.bounds);
        let took = now.duration_since(self.began);
        let host = all.host(&self.host, now, bounds);
        match fate {
            Fate::Answers => host.answered(took),
            Fate::Fails { asked } => host.failed(now, took, asked, bounds),
        }
        // It ends after the look at its host: a drop takes the lock itself.
        drop(all);
    }
}

impl Drop for Turn {
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

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.hosts.lock().hosts.get_mut(&self.host) {
            host.line -= 1;
        }
    }
}
