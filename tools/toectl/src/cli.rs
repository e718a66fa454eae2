//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use toed::admin::Share as AdminShare;
use toed::rate;

/// Starts, stops and watches a FerroTOE card, and runs programs on it.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "EXIT STATUS\n  0 done; 1 it failed; 2 wrong usage, or something that you have to change first (rights, a missing\n  interface, a daemon that is not running). 'run' ends with the program's own status; 125 toectl\n  itself failed, 126 the program cannot be executed, 127 it was not found.\n\nEXAMPLE\n  toectl up --port af_packet:eth1 --ip 192.0.2.10/24 --gateway 192.0.2.1\n  toectl up --board virt --image toe-virt-a72.elf --port tap:tap0 --ip 192.0.2.10/24\n  toectl run -- redis-server --bind 192.0.2.10 --protected-mode no\n  toectl ss\n  toectl down"
)]
pub struct Cli {
    /// Folder of sockets, pid files and logs; one per instance
    ///
    /// The default is /run/toe for root, else $XDG_RUNTIME_DIR/toe, else /tmp/toe-UID.
    #[arg(long, env = "TOE_RUN_DIR", global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start the card and its daemon in the background; return when they are ready
    Up(Up),
    /// Stop them, and remove all that they left, also after they were killed
    Down,
    /// Start the machine of a card in QEMU again, after it has failed or with a new build of its image
    Restart(Restart),
    /// Run a program with its TCP sockets on the card
    Run(Run),
    /// Show the card, its addresses and its applications
    Status(Format),
    /// Show connections and listeners, as ss(8) does
    Ss(Format),
    /// Show every counter, with the reason of each drop
    Stats(Stats),
    /// Watch single segments on their way through the card's stages
    Trace(Trace),
    /// Show what the card has logged
    Logs(Logs),
    /// Set what a running application gets of the card
    Limit(Limit),
}

/// What runs the card's data path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Board {
    /// A process of this machine
    Soft,
    /// Firmware inside QEMU (needs qemu-system-aarch64 and --image)
    Virt,
}

#[derive(Args, Debug)]
pub struct Up {
    /// Where frames go: af_packet:IFNAME (an interface that the card takes over) or tap:IFNAME (made if it is not there)
    ///
    /// Options follow after commas, as toe-nic --help lists them. A card in QEMU takes tap:IFNAME only.
    #[arg(long, value_name = "DRIVER:IFNAME")]
    pub port: String,
    /// The card's own addresses, of IPv4 and IPv6, with commas between; the kernel must not have them too
    #[arg(long, value_name = "ADDR/PREFIX", value_delimiter = ',', required_unless_present = "slaac")]
    pub ip: Vec<String>,
    /// Routers for all that is not on the card's network, of IPv4 and IPv6, with commas between; of several of one version
    /// the first that answers is used
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub gateway: Vec<String>,
    /// Take IPv6 addresses and routers from router advertisements
    #[arg(long)]
    pub slaac: bool,
    /// The VLAN that the card is on
    #[arg(long, value_name = "ID")]
    pub vlan: Option<u16>,
    /// The kind of card
    #[arg(long, value_enum, default_value_t = Board::Soft)]
    pub board: Board,
    /// Firmware of a card in QEMU: an ELF file, as 'cargo xtask image virt' builds it; with --uefi a UEFI application
    #[arg(long, value_name = "PATH")]
    pub image: Option<PathBuf>,
    /// Start the image as a UEFI application rather than as an ELF file
    #[arg(long)]
    pub uefi: bool,
    /// Memory that a card in QEMU shares with this host, and so all buffers of all applications: 64M (the default), a power of two
    #[arg(long, value_name = "SIZE")]
    pub window: Option<String>,
    /// CPUs for the card's data path, such as 2 or 2,3; default: wherever the kernel puts it. In QEMU: how many cores, 1 to 16, 4 by default
    #[arg(long, value_name = "LIST|N")]
    pub cores: Option<String>,
    /// How stages are placed on cores
    #[arg(long, value_name = "fused|auto|FILE")]
    pub placement: Option<String>,
    /// Damage frames on purpose, for tests: loss=0.01,dup=0.01,reorder=0.01,seed=1
    #[arg(long, value_name = "SPEC")]
    pub impair: Option<String>,
    /// One more word for toe-nic's command line, or the image's (repeatable), as in --nic-arg=--spin-us=0
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub nic_arg: Vec<OsString>,
    /// One more word for toed's command line (repeatable), as in --toed-arg=--tcp-rxbuf-len=65536
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub toed_arg: Vec<OsString>,
    /// Seconds to wait for each process to be ready
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub wait: u64,
}

#[derive(Args, Debug)]
pub struct Restart {
    /// Seconds to wait for the machine to be ready, and for toed to attach to it
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub wait: u64,
}

#[derive(Args, Debug)]
pub struct Run {
    /// If the card cannot be used, let the program use the kernel instead of refusing it sockets
    #[arg(long)]
    pub fallback: bool,
    #[command(flatten)]
    pub share: Share,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// What an application gets of the card.
#[derive(Args, Debug, Default)]
pub struct Share {
    /// Weight of its connections when they compete with other applications' for the card, from 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(AdminShare::WEIGHT_MAX)))]
    pub weight: Option<u32>,
    /// Most that its connections send together: 500kbit, 100mbit, 2.5gbit, unlimited
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    pub rate: Option<u64>,
}

#[derive(Args, Debug)]
pub struct Limit {
    /// The application of this process
    #[arg(long, value_name = "PID", required_unless_present = "region", conflicts_with = "region")]
    pub pid: Option<i32>,
    /// The application with this region ('toectl status' lists them)
    #[arg(long, value_name = "N")]
    pub region: Option<u32>,
    #[command(flatten)]
    pub share: Share,
}

#[derive(Args, Debug)]
pub struct Format {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Stats {
    /// Leave out counters that are 0
    #[arg(long)]
    pub nonzero: bool,
    /// Say what each of them counts
    #[arg(long, conflicts_with = "json")]
    pub explain: bool,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Trace {
    /// Only connections with this local port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How many segments to watch from beginning to end
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// How long to wait for them; Ctrl-C ends it earlier and shows what there is
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: u64,
    /// Write all that was seen to a file for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE.json")]
    pub output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Logs {
    /// The card's firmware, as it was started: its messages have their words there [default: toed's --image]
    ///
    /// Needed for a card without an operating system only.
    #[arg(long, value_name = "FILE")]
    pub elf: Option<PathBuf>,
    /// Go on with what is logged later, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_run_belongs_to_the_program() {
        for words in [&["toectl", "run", "--", "curl", "-v", "--json"][..], &["toectl", "run", "curl", "-v", "--json"]] {
            let Ok(Cli { command: Command::Run(run), .. }) = Cli::try_parse_from(words) else { panic!("{words:?}") };
            assert_eq!(run.program, ["curl", "-v", "--json"]);
        }
        assert!(Cli::try_parse_from(["toectl", "run"]).is_err());
    }

    #[test]
    fn extra_words_may_begin_with_a_hyphen() {
        let words = ["toectl", "up", "--port", "tap:t0", "--ip", "10.0.0.1/8", "--toed-arg", "--log-level", "--toed-arg=debug"];
        let Ok(Cli { command: Command::Up(up), .. }) = Cli::try_parse_from(words) else { panic!() };
        assert_eq!(up.toed_arg, ["--log-level", "debug"]);
    }

    #[test]
    fn limits_name_an_application_and_say_what_is_wrong_with_them() {
        let limit = |words: &str| Cli::try_parse_from(["toectl", "limit"].into_iter().chain(words.split(' ')));
        let Ok(Cli { command: Command::Limit(given), .. }) = limit("--pid 7 --rate 2.5gbit --weight 1000") else { panic!() };
        assert_eq!((given.pid, given.region, given.share.rate, given.share.weight), (Some(7), None, Some(2_500_000), Some(1000)));
        for (words, part) in [
            ("--rate 1mbit", "--pid <PID>"),
            ("--pid 7 --region 1 --rate 1mbit", "cannot be used with"),
            ("--pid 7 --rate 100", "a unit is missing"),
            ("--region 1 --weight 1001", "1..=1000"),
        ] {
            let error = limit(words).unwrap_err().to_string();
            assert!(error.contains(part), "{words}: {error}");
        }
    }

    #[test]
    fn an_unknown_board_is_refused_with_what_there_is() {
        let error = Cli::try_parse_from(["toectl", "up", "--port", "a:b", "--ip", "c", "--board", "agilio"]).unwrap_err().to_string();
        assert!(error.contains("agilio") && error.contains("soft"), "{error}");
    }
}
