//! The thread that asks: connects, keeps what is known fresh, connects again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_lite::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream};

use super::bus::{self, Bus, BusError, Place};
use super::{Link, Shared, Wanted};
use crate::source::model::KernelStr;

/// Between two attempts to connect: doubled each time, from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// A connection that lasted so long was a good one: its loss is news again.
const LASTED: Duration = Duration::from_secs(60);

/// A unit is asked about again after so long: not everything is signalled.
const REFRESH: Duration = Duration::from_secs(300);
/// The same where the bus grants no signals.
const POLL: Duration = Duration::from_secs(30);
/// And again at the earliest after so long, however often it changes.
const SHORTEST: Duration = Duration::from_millis(100);
/// systemd is asked something at least so often: a dead bus is found out.
const PULSE: Duration = Duration::from_secs(30);

/// Units that may be read at once, and how long it takes to earn another one.
/// A unit costs systemd and the bus about a millisecond together.
const BURST: u32 = 50;
const EARN: Duration = Duration::from_millis(20);

/// The handle was dropped: there is nobody to tell.
struct Dropped;

/// The thread.
pub(super) fn run(shared: &Shared, mut wanted: watch::Receiver<Wanted>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let Err(Dropped) = runtime.block_on(keep(shared, &mut wanted));
            // Whoever waits for a dead bus is not waited for.
            runtime.shutdown_background();
        }
        Err(e) => shared.link(Link::Down(format!("cannot start a runtime to ask it: {e}"))),
    }
}

async fn keep(
    shared: &Shared,
    wanted: &mut watch::Receiver<Wanted>,
) -> Result<std::convert::Infallible, Dropped> {
    let mut wait = FIRST_RETRY;
    let mut warned = false;
    loop {
        let began = Instant::now();
        let failed = match bus::place() {
            Ok(Place::Nowhere(reason)) => {
                tracing::debug!(%reason, "systemd is not asked");
                shared.link(Link::Absent(reason));
                None
            }
            Ok(Place::At(address)) => Some(attend(shared, wanted, address, warned).await?),
            Err(e) => Some(e),
        };
        if began.elapsed() >= LASTED {
            (warned, wait) = (false, FIRST_RETRY);
        }
        if let Some(e) = failed {
            let reason = explain(&e);
            if std::mem::replace(&mut warned, true) {
                tracing::debug!(%reason, "systemd is still not to be asked");
            } else {
                tracing::warn!(
                    %reason,
                    "systemd is not to be asked: invocations, main processes and limits are \
                     told from processes alone; trying again"
                );
            }
            shared.link(Link::Down(reason));
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            tokio::select! {
                () = sleep_until(until) => {}
                changed = wanted.changed() => changed.map_err(|_| Dropped)?,
            }
        }
        wait = (wait * 2).min(LAST_RETRY);
    }
}

fn explain(error: &BusError) -> String {
    let remedy = match error {
        BusError::Address(_) => "correct or unset it",
        BusError::Connect(..) => "is the D-Bus daemon running, and may this user connect?",
        BusError::Silent(_) => "the D-Bus daemon or systemd hangs",
        BusError::Ended(_) => "the D-Bus daemon or systemd was restarted",
        BusError::Manager(..) => "is systemd the manager of this machine?",
    };
    format!("{error}; {remedy}")
}

/// Keeps one connection until it fails; gives the reason.
async fn attend(
    shared: &Shared,
    wanted: &mut watch::Receiver<Wanted>,
    address: zbus::Address,
    warned: bool,
) -> Result<BusError, Dropped> {
    let bus = match Bus::connect(address).await {
        Ok(bus) => bus,
        Err(e) => return Ok(e),
    };
    let news = Arc::new(News::default());
    let signals = match listen(&bus, &news).await {
        Ok(signals) => signals,
        Err(e) => return Ok(e),
    };
    match bus.root().await {
        Ok(root) => shared.lock().root = root,
        Err(e) => return Ok(e),
    }
    shared.link(Link::Up);
    if warned {
        tracing::info!(address = bus.address(), "systemd answers again");
    } else {
        tracing::debug!(address = bus.address(), "systemd answers");
    }
    let mut round = Round::new(&bus, signals);
    loop {
        let listed = wanted.borrow_and_update().clone();
        round.want(shared, &listed);
        // Only the wait is broken off: a question that hangs has to be heard out,
        // or it would never be known to hang.
        let step = tokio::select! {
            changed = wanted.changed() => {
                changed.map_err(|_| Dropped)?;
                continue;
            }
            step = round.wait(&news) => step,
        };
        let done = match step {
            Step::Hear => round.hear(&news),
            Step::Pulse => round.pulse().await,
            Step::Read(name) => match listed.get(&name) {
                Some(cgroup) => round.read(shared, &name, cgroup, &news).await,
                None => Ok(()),
            },
        };
        if let Err(e) = done {
            return Ok(e);
        }
    }
}

/// What signals have told.
#[derive(Default)]
struct News {
    changed: Mutex<Changed>,
    some: Notify,
}

#[derive(Default)]
struct Changed {
    /// Objects of units that are asked about.
    watched: BTreeMap<String, Arc<str>>,
    /// Those that changed.
    units: BTreeSet<Arc<str>>,
    /// All may have.
    all: bool,
    /// The connection is of no more use.
    over: bool,
}

impl News {
    fn tell(&self, tell: impl FnOnce(&mut Changed)) {
        tell(&mut self.lock());
        self.some.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for signals, and for the tasks that take them. False where there are none.
async fn listen(bus: &Bus, news: &Arc<News>) -> Result<bool, BusError> {
    let rule = || MatchRule::builder().msg_type(Type::Signal);
    let bad = |e| BusError::Manager(bus.address().to_owned(), Box::new(e));
    let owner = || {
        rule()
            .sender("org.freedesktop.DBus")?
            .interface("org.freedesktop.DBus")?
            .member("NameOwnerChanged")?
            .arg(0, bus::MANAGER)
    };
    // Another systemd, after daemon-reexec say, knows nothing of subscriptions.
    let owner = bus.stream(owner().map_err(bad)?.build()).await?;
    tokio::spawn(take(owner, Arc::clone(news), |_, changed| changed.over = true));
    let properties = || {
        rule()
            .sender(bus::MANAGER)?
            .interface("org.freedesktop.DBus.Properties")?
            .member("PropertiesChanged")?
            .path_namespace("/org/freedesktop/systemd1/unit")
    };
    let properties = bus.stream(properties().map_err(bad)?.build()).await?;
    tokio::spawn(take(properties, Arc::clone(news), |message, changed| {
        let header = message.header();
        let name = header.path().and_then(|p| changed.watched.get(p.as_str()).cloned());
        changed.units.extend(name);
    }));
    let manager = || rule().sender(bus::MANAGER)?.interface("org.freedesktop.systemd1.Manager");
    let manager = bus.stream(manager().map_err(bad)?.build()).await?;
    tokio::spawn(take(manager, Arc::clone(news), |message, changed| {
        let header = message.header();
        match header.member().map(zbus::names::MemberName::as_str) {
            Some("UnitNew" | "UnitRemoved") => {
                let body = message.body();
                if let Ok((name, _)) = body.deserialize::<(&str, zbus::zvariant::ObjectPath<'_>)>()
                {
                    changed.units.insert(name.into());
                }
            }
            // Sent before and after daemon-reload: limits may be others.
            Some("Reloading") => changed.all = true,
            _ => {}
        }
    }));
    bus.subscribe().await
}

async fn take(
    mut stream: MessageStream,
    news: Arc<News>,
    tell: impl Fn(&Message, &mut Changed) + Send,
) {
    while let Some(Ok(message)) = stream.next().await {
        news.tell(|changed| tell(&message, changed));
    }
    // The bus has hung up.
    news.tell(|changed| changed.over = true);
}

/// What is to be done next.
enum Step {
    /// See what signals have told.
    Hear,
    /// See whether systemd still answers.
    Pulse,
    /// Read a unit.
    Read(Arc<str>),
}

/// When each unit is read next.
struct Round<'a> {
    bus: &'a Bus,
    signals: bool,
    due: BTreeMap<Arc<str>, Instant>,
    pulse: Instant,
    credit: u32,
    earned: Instant,
}

impl<'a> Round<'a> {
    fn new(bus: &'a Bus, signals: bool) -> Self {
        let now = Instant::now();
        Self { bus, signals, due: BTreeMap::new(), pulse: now + PULSE, credit: BURST, earned: now }
    }

    /// Takes units up and lets others go.
    fn want(&mut self, shared: &Shared, wanted: &Wanted) {
        let now = Instant::now();
        self.due.retain(|name, _| wanted.contains_key(name));
        for name in wanted.keys() {
            self.due.entry(Arc::clone(name)).or_insert(now);
        }
        let cgroups: BTreeSet<&KernelStr> = wanted.values().collect();
        shared.lock().units.retain(|cgroup, _| cgroups.contains(cgroup));
    }

    /// Waits for the next thing to do.
    async fn wait(&self, news: &News) -> Step {
        let first = self.due.iter().min_by_key(|(_, at)| **at);
        let (at, step) = match first {
            Some((name, at)) if *at <= self.pulse => (*at, Step::Read(Arc::clone(name))),
            _ => (self.pulse, Step::Pulse),
        };
        tokio::select! {
            () = sleep_until(at) => step,
            () = news.some.notified() => Step::Hear,
        }
    }

    async fn pulse(&mut self) -> Result<(), BusError> {
        self.pulse = Instant::now() + PULSE;
        self.bus.root().await.map(drop)
    }

    /// Waits until another unit may be read.
    async fn pay(&mut self) {
        while self.credit == 0 {
            let earned = self.earned.elapsed().div_duration_f64(EARN) as u32;
            if earned > 0 {
                self.credit = earned.min(BURST);
                self.earned = Instant::now();
            } else {
                sleep(EARN).await;
            }
        }
        self.credit -= 1;
    }

    async fn read(
        &mut self,
        shared: &Shared,
        name: &Arc<str>,
        cgroup: &KernelStr,
        news: &News,
    ) -> Result<(), BusError> {
        self.pay().await;
        let path = self.bus.find(name).await?;
        if let Some(path) = &path {
            // Before it is read: what changes meanwhile is read again.
            news.lock().watched.insert(path.to_string(), Arc::clone(name));
        }
        let unit = match &path {
            Some(path) => self.bus.read(name, path, cgroup.as_bytes()).await?,
            None => None,
        };
        let mut known = shared.lock();
        match unit {
            Some(unit) => drop(known.units.insert(cgroup.clone(), Arc::new(unit))),
            None => drop(known.units.remove(cgroup)),
        }
        let now = Instant::now();
        self.due.insert(Arc::clone(name), now + if self.signals { REFRESH } else { POLL });
        self.pulse = now + PULSE;
        Ok(())
    }

    /// Makes what has changed due.
    fn hear(&mut self, news: &News) -> Result<(), BusError> {
        let mut changed = news.lock();
        if changed.over {
            return Err(BusError::Ended(self.bus.address().to_owned()));
        }
        let soon = Instant::now() + SHORTEST;
        let (all, units) = (std::mem::take(&mut changed.all), std::mem::take(&mut changed.units));
        changed.watched.retain(|_, name| self.due.contains_key(name));
        for (name, at) in &mut self.due {
            if all || units.contains(name) {
                *at = (*at).min(soon);
            }
        }
        Ok(())
    }
}
