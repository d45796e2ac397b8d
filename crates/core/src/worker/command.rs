//! The command line of a worker: the same for all of them, except for their own options.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
};

use clap::{
    Args, Command, CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue},
};

use super::{
    kinds::{ChosenKinds, JobHandlers, warnings_of_kinds},
    options::WorkerOptions,
    queue_options::QueueOptions,
    runtime::{EXIT_USAGE, ProcessEnd},
    start::PreparedProcess,
};
use crate::webhook::WebhookOptions;
use genfleet_genesys::{GenesysClient, GenesysOptions};
use genfleet_job::{
    Kind,
    clock::{SharedClock, SystemClock},
    options::ConfigError,
};

/// Options of a worker.
#[derive(Debug, Parser)]
struct WorkerCommand<O: Args + fmt::Debug> {
    #[command(flatten)]
    queue: QueueOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,
    #[command(flatten)]
    own: O,
    /// Check the settings and exit: 0 if they can work, 64 if not
    #[arg(long)]
    check_config: bool,
}

/// Runs the worker of `H` as a program: parses its command line, connects, and works until it is stopped. `H` is one
/// [`JobHandler`](crate::handler::JobHandler), or a pair of them.
pub fn main<H: JobHandlers>() -> ExitCode {
    let kinds: Vec<Kind> = H::rows().iter().map(|row| row.kind).collect();
    let Some(name) = kinds.first().map(|kind| kind.worker()) else {
        return usage_error(&ConfigError::new("this program works no kind"));
    };
    let names = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" and ");
    let about = format!("Works {names} jobs: takes them from the queue, calls Genesys Cloud, publishes what happened.");
    let command = WorkerCommand::<H::Options>::command().name(name).about(about);
    let misspelt = misspelt_variables(&command);
    let options: WorkerCommand<H::Options> = match parse(command, env::args_os()) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match start::<H>(name, options, misspelt) {
        Ok(end) => end.into(),
        Err(error) => usage_error(&error),
    }
}

/// Prints what is wrong with the settings; exit code 64.
fn usage_error(error: &ConfigError) -> ExitCode {
    genfleet_job::eprint_line!("error: {error}");
    ExitCode::from(EXIT_USAGE)
}

/// Parses `arguments`, or prints what is wrong with them and returns the exit code. Empty variables count as not set;
/// passwords in arguments are refused.
pub fn parse<P: FromArgMatches>(command: Command, arguments: impl Iterator<Item = OsString>) -> Result<P, ExitCode> {
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.iter().any(|argument| has_password(&argument.to_string_lossy())) {
        let message = "a password in the arguments can be read by everybody on this machine: the queue's URL goes into GENFLEET_QUEUE_URL, the management API's into GENFLEET_MANAGEMENT_URL, or into a file that GENFLEET_QUEUE_URL_FILE or GENFLEET_MANAGEMENT_URL_FILE names; other URLs take no password";
        return Err(usage_error(&ConfigError::new(message)));
    }
    let ends = if exports_traces(&command) { format!("{SECRETS}\n\n{TRACES}") } else { SECRETS.to_owned() };
    let command = with_notes(command.version(env!("CARGO_PKG_VERSION")).after_help(ends));
    let mut command = without_empty_variables(command);
    let parsed = command.try_get_matches_from_mut(&arguments).and_then(|matches| P::from_arg_matches(&matches));
    parsed.map_err(|error| {
        // Nothing can be done if even this cannot be written.
        let _ = print(&error);
        if let Some(variable) = find_variable_of_error(&command, &error, &arguments) {
            genfleet_job::eprint_line!("hint: the value is that of the variable {variable}");
        }
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// The variable that set the value which `error` is about, if no argument did.
fn find_variable_of_error(command: &Command, error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(blamed)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = blamed.split([' ', '=']).next()?;
    let is_given = arguments.iter().any(|argument| argument.to_string_lossy().split('=').next() == Some(flag));
    let setting = settings(command).into_iter().find(|(long, variable)| {
        flag.strip_prefix("--") == Some(long) && env::var_os(variable).is_some_and(|value| !value.is_empty())
    });
    setting.map(|(_, variable)| variable).filter(|_| !is_given)
}

/// The flags that can be set by variables, with their variables.
fn settings(command: &Command) -> Vec<(String, String)> {
    let of = |argument: &clap::Arg| Some((argument.get_long()?.to_owned(), argument.get_env()?.to_str()?.to_owned()));
    command.get_arguments().filter_map(of).chain(command.get_subcommands().flat_map(settings)).collect()
}

/// Warnings about variables that are set, are no setting of `command`, and are spelled almost like one. Others beginning with
/// `GENFLEET_` are not warned about: a worker does not know the settings of another, and Kubernetes sets some for services.
pub fn misspelt_variables(command: &Command) -> Vec<String> {
    let mut known: Vec<String> = ["GENFLEET_QUEUE_URL", "GENFLEET_WEBHOOK_SECRET"].map(str::to_owned).into();
    known.extend(settings(command).into_iter().map(|(_, variable)| variable));
    known.extend(known.iter().map(|name| format!("{name}_FILE")).collect::<Vec<_>>());
    // These name variables of the operator's choice.
    let named = env::var("GENFLEET_WEBHOOK_SECRETS").into_iter().chain(env::args()).collect::<String>();
    let set = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    set.filter(|name| !named.contains(name)).filter_map(|name| misspelt_warning(&name, &known)).collect()
}

fn misspelt_warning(name: &str, known: &[String]) -> Option<String> {
    const MOST_EDITS: usize = 2;
    if !name.starts_with("GENFLEET_") || known.iter().any(|known| known == name) {
        return None;
    }
    let near = known.iter().map(|known| (strsim::osa_distance(name, known), known)).min()?;
    (near.0 <= MOST_EDITS).then(|| format!("{name} is not a setting and is ignored; did you mean {}?", near.1))
}

/// Prints what is wrong with the arguments, or the help. Messages of libraries about a value are put into plain words.
fn print(error: &clap::Error) -> io::Result<()> {
    if error.kind() != clap::error::ErrorKind::ValueValidation {
        return error.print();
    }
    let coloured = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = if coloured { error.render().ansi().to_string() } else { error.to_string() };
    io::stderr().write_all(in_plain_words(&text).as_bytes())
}

fn in_plain_words(text: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("invalid digit found in string", "not a whole number"),
        ("cannot parse integer from empty string", "a whole number is expected"),
        ("number too large to fit in target type", "the number is too large"),
        ("number too small to fit in target type", "the number is too small"),
        ("invalid float literal", "not a number"),
        ("invalid IP address syntax", "not an IP address"),
    ];
    let text = WORDS.iter().fold(text.to_owned(), |text, (library, plain)| text.replace(library, plain));
    let Some((before, rest)) = text.split_once(" is not in ") else { return text };
    let (range, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    // The library writes `1..=100`, and an open end as the largest number of the type.
    match range.split_once("..") {
        Some((least, most)) if most.starts_with('=') && most.len() < 10 && most != "=65535" => {
            format!("{before} is not between {least} and {}{after}", &most[1..])
        }
        Some((least, _)) => format!("{before} is not at least {least}{after}"),
        None => text.clone(),
    }
}

/// End of the `--help` of every command that takes a queue.
const SECRETS: &str = "Secrets, only by variable or, with _FILE after its name, by the file it names:
  GENESYS_CLIENT_ID, GENESYS_CLIENT_SECRET   the OAuth client
  GENFLEET_QUEUE_URL                         the queue's address, where it holds a password
  GENFLEET_WEBHOOK_SECRET                    whsec_…, signs deliveries; several separated by a space";

/// End of the `--help` of every command that works jobs.
const TRACES: &str = "Traces, where OTEL_EXPORTER_OTLP_ENDPOINT is set (http://HOST:4318, OTLP over HTTP).
The other OTEL_* variables mean what OpenTelemetry says: OTEL_EXPORTER_OTLP_HEADERS
(or …_HEADERS_FILE), OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, …";

/// Returns true for the address of a broker or of its management API with a password, whatever else is wrong with it.
fn has_password(argument: &str) -> bool {
    let assigned = ["--queue-url=", "--management-url="].iter().find_map(|flag| argument.strip_prefix(flag));
    let value = assigned.unwrap_or(argument);
    let is_address = ["amqp://", "amqps://", "http://", "https://"].iter().any(|scheme| value.starts_with(scheme));
    let authorities = value.split("://").skip(1).filter_map(|rest| rest.split(['/', '?']).next());
    is_address
        && authorities
            .flat_map(|all| all.split(','))
            .any(|one| one.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')))
}

/// Adds the notes to the subcommands, after their examples.
fn with_notes(command: Command) -> Command {
    command.mut_subcommands(|command| {
        let takes_queue = command.get_arguments().any(|argument| argument.get_id() == "queue_url");
        let traces = exports_traces(&command).then_some(TRACES);
        let command = with_notes(command);
        let examples = command.get_after_help().map(ToString::to_string);
        let notes = [examples.as_deref(), takes_queue.then_some(SECRETS), traces];
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        if notes.is_empty() { command } else { command.after_help(notes.join("\n\n")) }
    })
}

/// Returns true for a command that works jobs.
fn exports_traces(command: &Command) -> bool {
    command.get_arguments().any(|argument| argument.get_id() == "attempt_timeout")
}

fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let empty = argument.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
        if empty { argument.env(None::<&'static str>) } else { argument }
    });
    command.mut_subcommands(without_empty_variables)
}

fn start<H: JobHandlers>(
    name: &'static str,
    options: WorkerCommand<H::Options>,
    misspelt: Vec<String>,
) -> Result<ProcessEnd, ConfigError> {
    let WorkerCommand { queue, worker, genesys, webhooks, own, check_config } = options;
    let rows = H::rows();
    let reasons = rows.iter().map(|row| (row.kind, (row.why_not_worked)(&own)));
    let kinds = ChosenKinds::new(name, reasons, &worker.kinds)?;
    let rows: Vec<_> = rows.into_iter().filter(|row| kinds.worked.contains(&row.kind)).collect();
    rows.iter().try_for_each(|row| (row.check)(&own))?;
    let rights: Vec<_> =
        rows.iter().filter(|row| (row.calls_genesys)(&own)).map(|row| (row.kind, row.rights)).collect();
    let calling: Vec<_> = rights.iter().map(|(kind, _)| *kind).collect();
    let of_kinds = warnings_of_kinds(&genesys, &kinds.worked, &calling);
    let process = PreparedProcess::new(name, queue, worker, &webhooks, kinds, [misspelt, of_kinds].concat())?;
    let clock: SharedClock = Arc::new(SystemClock);
    let genesys = GenesysClient::new(&genesys, rights, clock.clone())?;
    if check_config {
        // The exit code says it where nobody reads.
        let _ = writeln!(io::stdout(), "{}", process.check(&clock)?);
        return Ok(ProcessEnd::Stopped);
    }
    block_on(process.run(name, genesys, clock, |runtime| rows.iter().try_for_each(|row| (row.work)(runtime, &own))))
        .map_err(|error| ConfigError::new(format!("no executor: {error}")))?
}

/// Runs `task` on an executor of its own. A blocking thread that hangs when the task ends, such as a write to a pipe that
/// nobody reads, is left behind and ends with the process.
pub fn block_on<T>(task: impl Future<Output = T>) -> io::Result<T> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = executor.block_on(task);
    executor.shutdown_background();
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_values_are_in_plain_words() {
        let numbers = clap::value_parser!(u16);
        let message = |numbers: clap::builder::RangedI64ValueParser<u16>, value| {
            let command = Command::new("a").arg(clap::Arg::new("n").long("n").value_parser(numbers));
            in_plain_words(&command.try_get_matches_from(["a", "--n", value]).unwrap_err().to_string())
        };
        for (value, plain) in
            [("0", "0 is not between 1 and 100"), ("x", "not a whole number"), ("", "a whole number is expected")]
        {
            let message = message(numbers.range(1..=100), value);
            assert!(message.contains(plain), "{message}");
        }
        let open = message(numbers.range(2..), "1");
        assert!(open.contains("1 is not at least 2\n"), "{open}");
    }

    #[test]
    fn every_subcommand_that_takes_a_queue_says_where_secrets_come_from() {
        let tool = Command::new("tool")
            .subcommand(Command::new("list").arg(clap::Arg::new("queue_url").long("queue-url")).after_help("Examples"))
            .subcommand(Command::new("work").arg(clap::Arg::new("attempt_timeout").long("attempt-timeout")))
            .subcommand(Command::new("topology"));
        let mut tool = with_notes(tool);
        let mut help = |name| tool.find_subcommand_mut(name).unwrap().render_help().to_string();
        assert!(help("list").contains("Examples") && help("list").contains("GENFLEET_QUEUE_URL"));
        assert!(!help("topology").contains("GENFLEET_QUEUE_URL"));
        assert!(help("work").contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !help("list").contains("OTEL_"));
    }

    #[test]
    fn a_variable_that_is_almost_a_setting_is_warned_about() {
        let known = ["GENFLEET_QUEUE_URL", "GENFLEET_BATCH_LINGER"].map(str::to_owned);
        let warning = |name| misspelt_warning(name, &known);
        assert!(
            warning("GENFLEET_BATCH_LINGRE").is_some_and(|text| text.ends_with("did you mean GENFLEET_BATCH_LINGER?"))
        );
        assert!(warning("GENFLEET_QUEUEURL").is_some());
        for fine in
            ["GENFLEET_QUEUE_URL", "GENFLEET_MAX_INTERFACES", "GENFLEET_PURGER_SERVICE_HOST", "GENESYS_BATCH_LINGER"]
        {
            assert_eq!(warning(fine), None);
        }
    }

    #[test]
    fn a_password_in_the_arguments_is_seen() {
        assert!(has_password("--queue-url=amqp://user:secret@host"));
        assert!(has_password("amqps://user:secret@host/vhost"));
        assert!(has_password("amqp://user:secret@one:5672,two:5672/v"));
        assert!(has_password("amqp://one,amqp://user:secret@two"));
        assert!(has_password("--management-url=http://user:secret@host:15672"));
        assert!(has_password("https://user:secret@host"));
        assert!(!has_password("amqp://one:5672,two:5672/v"));
        assert!(!has_password(r#"{"paths":["/a?amqp://user:secret@b"]}"#));
        assert!(!has_password("amqp://user@host"));
        assert!(!has_password("https://host:8480/user@example"));
        assert!(!has_password("--queue-url=sqlite:jobs.db"));
    }
}
