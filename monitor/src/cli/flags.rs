//! Every command and flag. Their names are promises to users.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::listen::{host_name, listen_address, telemetry_path};
use super::size::size;
use super::url::BaseUrl;

/// What the exit status of every command means.
pub(super) const EXIT_STATUS: &str =
    "0 for success, 1 for a failure, 2 for a bad flag or configuration.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "leakwatch",
    version,
    about = env!("CARGO_PKG_DESCRIPTION"),
    after_help = format!("Exit status: {EXIT_STATUS}"),
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent: probes, verdicts, cleanup, metrics
    Watch(WatchFlags),
    /// Run one command and say what it leaves open or behind
    Run(RunFlags),
    /// Show units and verdicts, from the running agent or by one census
    Status(StatusFlags),
    /// Show one verdict with all its evidence
    Explain(ExplainFlags),
    /// Write down what the agent sees, for `replay`
    Record(RecordFlags),
    /// Judge what `record` has written
    Replay(ReplayFlags),
    /// Say what this host allows, what is blind and what to grant
    Doctor(DoctorFlags),
    /// Check, explain or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual pages
    Man {
        /// Write one file per command into DIR instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ConfigFlag {
    /// Configuration file [default: /etc/leakwatch/leakwatch.toml if it exists,
    /// else built-in defaults]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct WatchFlags {
    #[command(flatten)]
    pub(super) config: ConfigFlag,
    /// Where the agent keeps its state [default: /var/lib/leakwatch for root, else
    /// $XDG_STATE_HOME/leakwatch or ~/.local/state/leakwatch]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Address to serve HTTP on, such as 127.0.0.1:19970, `[::1]:19970`, or :19970 for
    /// all addresses; may be repeated
    #[arg(
        long = "web.listen-address",
        value_name = "ADDR",
        default_value = "127.0.0.1:19970",
        value_parser = listen_address
    )]
    pub(super) listen: Vec<SocketAddr>,
    /// Path of the metrics
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = telemetry_path
    )]
    pub(super) telemetry_path: String,
    /// Name that may be asked for over loopback besides those of this host, such as
    /// that of a proxy here that passes it on; may be repeated
    #[arg(long = "web.allowed-host", value_name = "NAME", value_parser = host_name)]
    pub(super) allowed_hosts: Vec<String>,
    /// Least severe messages to log
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub(super) log_level: LogLevel,
    /// How to write them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// End with status 3 if the command succeeded and something was found
    #[arg(long)]
    pub(super) fail_on_leak: bool,
    /// Where the report goes, in place of stderr; what FILE held is replaced
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// How it is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub(super) format: ReportFormat,
    /// Leave out what an earlier report (`--format json`) has named
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
    /// Take a single descriptor for a finding, what only grew, and a temporary file whoever made it
    #[arg(long)]
    pub(super) strict: bool,
    /// Attach no probes, which only root can: descriptors have their program for opener then
    #[arg(long)]
    pub(super) no_probes: bool,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) command: Vec<OsString>,
}

/// How `run` writes its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    Text,
    Json,
    Junit,
    Sarif,
}

/// Where `status` and `explain` get their data.
#[derive(Debug, Args)]
pub(super) struct AgentFlags {
    /// Where the agent listens; where none does on this host, one census of our own
    /// is taken
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:19970")]
    pub(super) url: BaseUrl,
    #[command(flatten)]
    pub(super) config: ConfigFlag,
}

#[derive(Debug, Args)]
pub(super) struct StatusFlags {
    /// Print JSON: {"units": […], "leaks": […]}
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) agent: AgentFlags,
}

#[derive(Debug, Args)]
pub(super) struct ExplainFlags {
    /// The verdict's id, or its first digits; `leakwatch status` shows it
    pub(super) id: String,
    #[command(flatten)]
    pub(super) agent: AgentFlags,
}

#[derive(Debug, Args)]
pub(super) struct RecordFlags {
    /// The trace to write; others may not read it, for names, paths and command lines
    /// of this host are in it
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) config: ConfigFlag,
    /// Stop after so long, such as 90s or 2h; without it at SIGINT or SIGTERM
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) duration: Option<Duration>,
    /// Stop when the trace has so many bytes, such as 500MiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(super) max_size: u64,
    /// Replace FILE if it exists
    #[arg(long)]
    pub(super) force: bool,
    /// Print verdicts as JSON: an object for each change, and all of them at the end
    #[arg(long)]
    pub(super) json: bool,
    /// Least severe messages to log
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    pub(super) log_level: LogLevel,
}

#[derive(Debug, Args)]
pub(super) struct ReplayFlags {
    /// The trace; `-` is standard input
    pub(super) file: PathBuf,
    /// Print verdicts as JSON: an object for each change, and all of them at the end
    #[arg(long)]
    pub(super) json: bool,
    /// Judge by this configuration file instead of what the trace was recorded with
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DoctorFlags {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) config: ConfigFlag,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Find every mistake in a configuration
    Check {
        /// The file; `-` is standard input
        #[arg(default_value = crate::config::DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Print a commented example
    Example,
    /// Print the configuration in effect, defaults included
    Show(ConfigFlag),
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from(["leakwatch"].iter().chain(args)).map(|cli| cli.command)
    }

    fn watch(args: &[&str]) -> WatchFlags {
        match parse(&[&["watch"], args].concat()).unwrap() {
            Command::Watch(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn watch_has_the_promised_defaults() {
        let flags = watch(&[]);
        assert_eq!(flags.config.config, None);
        assert_eq!(flags.state_dir, None);
        assert_eq!(flags.listen, ["127.0.0.1:19970".parse().unwrap()]);
        assert_eq!(flags.telemetry_path, "/metrics");
        assert_eq!((flags.log_level, flags.log_format), (LogLevel::Info, LogFormat::Text));
    }

    #[test]
    fn watch_takes_every_promised_flag() {
        let flags = watch(&[
            "--config=/a.toml",
            "--state-dir",
            "/s",
            "--web.listen-address=127.0.0.1:1",
            "--web.listen-address",
            "[::1]:2",
            "--web.telemetry-path=/m",
            "--web.allowed-host=a.example",
            "--web.allowed-host",
            "b",
            "--log-level=trace",
            "--log-format=json",
        ]);
        assert_eq!(flags.config.config, Some("/a.toml".into()));
        assert_eq!(flags.state_dir, Some("/s".into()));
        // Given ones replace the default.
        assert_eq!(flags.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!(flags.telemetry_path, "/m");
        assert_eq!(flags.allowed_hosts, ["a.example", "b"]);
        assert_eq!((flags.log_level, flags.log_format), (LogLevel::Trace, LogFormat::Json));
    }

    #[test]
    fn the_other_commands_take_theirs() {
        for args in [
            &["status"][..],
            &["status", "--json", "--url", "http://[::1]:9", "--config", "/a"],
            &["explain", "0123456789ab", "--url=http://h:1"],
            &["run", "--", "true"],
            &["run", "--fail-on-leak", "--report=/r", "--format=json", "true", "--format=x"],
            &["run", "--baseline", "/b", "--strict", "--", "sh", "-c", "exit 1"],
            &["record", "/t"],
            &[
                "record",
                "/t",
                "--config=/a",
                "--duration=2h",
                "--max-size=5MiB",
                "--force",
                "--json",
            ],
            &["replay", "/t"],
            &["replay", "-", "--json", "--config", "/a"],
            &["doctor", "--json", "--config=/a"],
            &["config", "check"],
            &["config", "check", "/a"],
            &["config", "check", "-"],
            &["config", "example"],
            &["config", "show", "--config", "/a"],
            &["completions", "zsh"],
            &["man"],
            &["man", "--dir", "/m"],
        ] {
            parse(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        }
    }

    #[test]
    fn mistakes_end_with_status_2_and_a_hint() {
        for (args, want) in [
            (&["statsu"][..], "a similar subcommand exists: 'status'"),
            (&["watch", "--web.listen-adress=:1"], "'--web.listen-address'"),
            (&["watch", "--web.listen-address=127.0.0.1"], "it has no port"),
            (&["watch", "--web.telemetry-path=metrics"], "it must begin with `/`"),
            (&["watch", "--web.allowed-host=h:80"], "without a port"),
            (&["watch", "--log-level=loud"], "[possible values: error, warn, info, debug, trace]"),
            (&["status", "--url=https://h"], "https is not supported"),
            (&["explain"], "<ID>"),
            (&["run"], "<CMD>"),
            (&["run", "--format=xml", "--", "true"], "[possible values: text, json, junit, sarif]"),
            (&["record"], "<FILE>"),
            (&["record", "/t", "--max-size=many"], "write such as 500MiB"),
            (&["record", "/t", "--duration=long"], "--duration"),
            (&["completions", "bassh"], "'bash'"),
        ] {
            let error = parse(args).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
            assert!(error.to_string().contains(want), "{args:?}: {error}");
        }
        assert_eq!(parse(&[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn version_and_help_succeed() {
        let version = parse(&["--version"]).unwrap_err();
        assert_eq!((version.kind(), version.exit_code()), (ErrorKind::DisplayVersion, 0));
        assert_eq!(version.to_string(), format!("leakwatch {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(parse(&["watch", "--help"]).unwrap_err().exit_code(), 0);
    }
}
