//! The kinds that one binary can work, and which of them a process works: those that `--kinds` names, or all that its
//! settings allow.

use std::{env, fmt};

use clap::Args;

use super::runtime::Runtime;
use crate::handler::JobHandler;
use genfleet_genesys::{GenesysOptions, Rights};
use genfleet_job::{Kind, options::ConfigError};

/// The handlers of one binary: one [`JobHandler`], or a pair of them.
pub trait JobHandlers: 'static {
    /// The settings of all of them.
    type Options: Args + Clone + fmt::Debug;

    /// Lists them, in the order of `--help`.
    fn rows() -> Vec<HandlerRow<Self::Options>>;
}

/// A handler as its binary sees it, whose settings are `O`. The functions are those of [`JobHandler`].
pub struct HandlerRow<O> {
    /// The kind that it works.
    pub kind: Kind,
    /// The rights that the OAuth client needs.
    pub rights: Rights,
    /// See [`JobHandler::why_not_worked`].
    pub why_not_worked: HandlerFunction<O, Option<String>>,
    /// See [`JobHandler::check`].
    pub check: HandlerFunction<O, Result<(), ConfigError>>,
    /// See [`JobHandler::calls_genesys`].
    pub calls_genesys: HandlerFunction<O, bool>,
    /// Starts to take jobs in the process.
    pub work: StartWorker<O>,
}

type HandlerFunction<O, T> = Box<dyn Fn(&O) -> T + Send + Sync>;
type StartWorker<O> = Box<dyn Fn(&Runtime, &O) -> Result<(), ConfigError> + Send + Sync>;

impl<O: 'static> HandlerRow<O> {
    /// Describes `H`, whose `own` settings are a part of its binary's.
    pub fn of<H: JobHandler>(own: fn(&O) -> &H::Options) -> Self {
        Self {
            kind: H::KIND,
            rights: H::rights(),
            why_not_worked: Box::new(move |options| H::why_not_worked(own(options))),
            check: Box::new(move |options| H::check(own(options))),
            calls_genesys: Box::new(move |options| H::calls_genesys(own(options))),
            work: Box::new(move |runtime, options| runtime.work::<H>(own(options).clone())),
        }
    }
}

impl<H: JobHandler> JobHandlers for H {
    type Options = H::Options;

    fn rows() -> Vec<HandlerRow<H::Options>> {
        vec![HandlerRow::of::<H>(|options| options)]
    }
}

impl<A: JobHandler, B: JobHandler> JobHandlers for (A, B) {
    type Options = OptionsOfTwo<A::Options, B::Options>;

    fn rows() -> Vec<HandlerRow<Self::Options>> {
        vec![HandlerRow::of::<A>(|options| &options.first), HandlerRow::of::<B>(|options| &options.second)]
    }
}

/// The settings of two handlers on one command line.
#[derive(Clone, Debug, Args)]
pub struct OptionsOfTwo<A: Args, B: Args> {
    #[command(flatten)]
    first: A,
    #[command(flatten)]
    second: B,
}

/// The kinds that a process works, and those that its settings leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenKinds {
    /// The kinds that are worked.
    pub worked: Vec<Kind>,
    /// Kinds that nobody asked for by name and that are not worked, with the reason and the remedy.
    pub left_out: Vec<(Kind, String)>,
}

impl ChosenKinds {
    /// Chooses among the kinds that `program` can work, each with the reason for which its settings leave it out, if any.
    /// A kind in `named` that cannot be worked is an error; where none is named, all are wanted.
    pub fn new(
        program: &str,
        all: impl IntoIterator<Item = (Kind, Option<String>)>,
        named: &[Kind],
    ) -> Result<Self, ConfigError> {
        let all: Vec<(Kind, Option<String>)> = all.into_iter().collect();
        if let Some(other) = named.iter().find(|kind| all.iter().all(|(known, _)| known != *kind)) {
            return Err(ConfigError::new(other_program(program, *other, all.iter().map(|(kind, _)| *kind))));
        }
        let wanted = all.into_iter().filter(|(kind, _)| named.is_empty() || named.contains(kind));
        let (mut worked, mut left_out) = (Vec::new(), Vec::new());
        for (kind, reason) in wanted {
            match reason {
                None => worked.push(kind),
                Some(reason) => left_out.push((kind, reason)),
            }
        }
        match left_out.first() {
            Some((kind, reason)) if !named.is_empty() || worked.is_empty() => {
                Err(ConfigError::new(not_worked_because(*kind, reason)))
            }
            _ => Ok(Self { worked, left_out }),
        }
    }

    /// Says why jobs of `kind` are not worked; `None` if they are.
    pub fn why_not_worked(&self, kind: Kind) -> Option<String> {
        if self.worked.contains(&kind) {
            return None;
        }
        let left_out = self.left_out.iter().find(|(left_out, _)| *left_out == kind);
        let why = left_out.map_or("--kinds (GENFLEET_KINDS) does not name it", |(_, reason)| reason);
        Some(not_worked_because(kind, why))
    }

    /// Says of each kind that is left out that it is not worked, why, and what to do.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(|(kind, reason)| not_worked_because(*kind, reason))
    }
}

fn not_worked_because(kind: Kind, reason: &str) -> String {
    format!("{kind} is not worked: {reason}")
}

fn other_program(program: &str, other: Kind, known: impl Iterator<Item = Kind>) -> String {
    let known: Vec<&str> = known.map(Kind::as_str).collect();
    let remedy = if other.is_internal() {
        "it is worked by every process; leave it out of --kinds".to_owned()
    } else {
        format!("name some of {}, or start {}", known.join(", "), other.worker())
    };
    format!("{program} does not work {other} (--kinds, GENFLEET_KINDS): {remedy}")
}

/// Warns of kinds among `worked` whose jobs may fail for a reason that shows at the start. Those that call Genesys Cloud are
/// in `calling`.
pub fn warnings_of_kinds(genesys: &GenesysOptions, worked: &[Kind], calling: &[Kind]) -> Vec<String> {
    let variables = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let proxy = variables.into_iter().find(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    let proxy = proxy.and_then(|variable| warn_of_unused_proxy(variable, genesys, worked, calling));
    warn_of_tutorial_kinds(genesys, calling).into_iter().chain(proxy).collect()
}

/// Warns of kinds that cannot work with a real organisation, because the public API has none of their operations; `None` if
/// there are none among `kinds`, or if requests go to another place than the vendor's platform.
fn warn_of_tutorial_kinds(genesys: &GenesysOptions, kinds: &[Kind]) -> Option<String> {
    let replaced = kinds.iter().filter_map(|kind| Some(format!("{kind} ({})", kind.replacement()?)));
    let listed: Vec<String> = replaced.filter(|_| genesys.is_of_the_vendor()).collect();
    (!listed.is_empty()).then(|| {
        let listed = listed.join(", ");
        format!("the public API of Genesys Cloud has no operations for these kinds, so that their jobs fail: {listed}")
    })
}

/// Warns of kinds that also send requests to hosts other than the API's, which use no proxy, although `variable` names one.
fn warn_of_unused_proxy(variable: &str, genesys: &GenesysOptions, worked: &[Kind], calling: &[Kind]) -> Option<String> {
    let asks_others = |kind: &&Kind| match kind {
        Kind::MediaScan => true,
        // An address that is none is reported as an error.
        Kind::WebDeploymentProvision => genesys.addresses().is_ok_and(|addresses| addresses.cdn.is_some()),
        // It asks another CDN.
        Kind::CdnPurge => !calling.contains(kind),
        _ => false,
    };
    let kinds: Vec<&str> = worked.iter().filter(asks_others).map(|kind| kind.as_str()).collect();
    let kinds = kinds.join(", ");
    (!kinds.is_empty()).then(|| {
        format!(
            "{variable} is used for the API of Genesys Cloud only; these kinds also connect to other hosts, directly, so \
             that firewalls have to permit it: {kinds}"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    const BOTH: [(Kind, Option<&str>); 2] = [(Kind::CdnPurge, None), (Kind::FileScan, Some("set --engine"))];

    fn choose(named: &[Kind]) -> Result<ChosenKinds, String> {
        let all = BOTH.map(|(kind, reason)| (kind, reason.map(str::to_owned)));
        ChosenKinds::new("both", all, named).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kind_that_its_settings_leave_out_is_told_and_does_not_keep_the_others_from_work() {
        let chosen = choose(&[]).unwrap();
        assert_eq!(chosen.worked, [Kind::CdnPurge]);
        assert_eq!(chosen.notes().collect::<Vec<_>>(), ["file.scan is not worked: set --engine"]);
        let narrowed = choose(&[Kind::CdnPurge, Kind::CdnPurge]).unwrap();
        assert!(narrowed.why_not_worked(Kind::FileScan).unwrap().contains("--kinds"));
        assert_eq!(narrowed.why_not_worked(Kind::CdnPurge), None);
        assert_eq!((narrowed.worked, narrowed.left_out), (vec![Kind::CdnPurge], vec![]));
    }

    #[test]
    fn a_kind_that_is_named_and_cannot_be_worked_is_an_error_with_the_remedy() {
        assert_eq!(choose(&[Kind::FileScan]).unwrap_err(), "file.scan is not worked: set --engine");
        assert_eq!(choose(&[Kind::CdnPurge, Kind::FileScan]).unwrap_err(), "file.scan is not worked: set --engine");
        let other = choose(&[Kind::VniProvision]).unwrap_err();
        assert!(
            other.contains("both does not work vni.provision") && other.contains("start vni-provisioner"),
            "{other}"
        );
        let internal = choose(&[Kind::WebhookDeliver]).unwrap_err();
        assert!(internal.contains("leave it out"), "{internal}");
    }

    fn genesys(arguments: &[&str]) -> GenesysOptions {
        let command = GenesysOptions::augment_args(Command::new("test").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        GenesysOptions::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    #[test]
    fn kinds_that_ask_other_hosts_are_warned_about_where_a_proxy_is_set() {
        use Kind::{CdnPurge, MediaScan, VniProvision, WebDeploymentProvision};
        let kinds = [CdnPurge, MediaScan, VniProvision, WebDeploymentProvision];
        let named = |arguments: &[&str], worked: &[Kind], calling: &[Kind]| {
            let warning = warn_of_unused_proxy("HTTPS_PROXY", &genesys(arguments), worked, calling)?;
            assert!(warning.starts_with("HTTPS_PROXY"), "{warning}");
            Some(warning.rsplit_once(": ").unwrap().1.to_owned())
        };
        assert_eq!(named(&[], &kinds, &kinds).unwrap(), "media.scan, webdeployment.provision");
        assert_eq!(named(&[], &kinds[..1], &[]).unwrap(), "cdn.purge");
        assert_eq!(named(&[], &[CdnPurge, VniProvision], &kinds), None);
        let base = ["--genesys-base-url", "https://api.example"];
        assert_eq!(named(&base, &[WebDeploymentProvision], &kinds), None, "no edge is known");
    }

    #[test]
    fn a_kind_of_the_tutorials_is_warned_about_where_requests_go_to_the_vendor() {
        let warning = |arguments: &[&str]| {
            warn_of_tutorial_kinds(&genesys(arguments), &[Kind::VniProvision, Kind::WebhookDeliver])
        };
        assert!(warning(&[]).unwrap().ends_with("fail: vni.provision (no kind replaces it)"));
        assert_eq!(warning(&["--genesys-base-url", "http://127.0.0.1:1"]), None);
    }

    #[test]
    fn a_process_that_would_work_nothing_does_not_start() {
        let all = [(Kind::FileScan, Some("set --engine".to_owned()))];
        assert!(ChosenKinds::new("one", all, &[]).unwrap_err().to_string().contains("set --engine"));
    }
}
