//! `kubeboot token`: makes tokens, offline for a new cluster or for the one that this control plane is of, and shows,
//! looks at and revokes them. Tokens go to standard output only, and come from files or standard input only.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Output;
use super::answer::{self, print, print_json, stop};
use super::boot::Stop;
use super::place::{Needs, There};
use crate::certificates::DAY;
use crate::enrolment::decision::{Origin, TokenRecord};
use crate::enrolment::message::Founded;
use crate::enrolment::objects::{moment, role_text};
use crate::exit::Exit;
use crate::host::{random, sources};
use crate::operators::Request;
use crate::operators::request::{Admits, Bytes, LONGEST, is_token_id};
use crate::release::date::Moment;
use crate::settings::{Role, is_host};
use crate::token::{JoinToken, Joiner, Seed, Token};
use crate::words::Paint;
use crate::words::tokens::{self, Set};

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot token generate                        a new cluster's tokens, and how machines are started with them\n  \
    kubeboot token generate --seed > seed.token    the founder's alone, for a credential or user-data\n  \
    kubeboot token create                          on a control plane: a fresh token for workers\n  \
    kubeboot --node 10.0.0.10 token create         from anywhere, as an operator\n  \
    kubeboot token list\n  \
    kubeboot token inspect < worker.token          what a token is for, and where a typing error is")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make the tokens of a new cluster. Needs no network and no cluster; keep them secret
    #[command(after_help = "Examples:\n  \
        kubeboot token generate --join 192.168.1.10    with the address at which the founder will be reached\n  \
        kubeboot token generate --seed > seed.token    only the founder's\n  \
        kubeboot token generate --from seed.token --output json")]
    Generate(Generate),
    /// Make a token for machines that are to join this control plane's cluster
    #[command(after_help = "Examples:\n  \
        kubeboot token create > worker.token\n  \
        kubeboot token create --uses 3 --ttl 2h\n  \
        kubeboot token create --role control-plane     for one machine")]
    Create(Create),
    /// Show the cluster's tokens, without their secrets
    #[command(after_help = "Example:\n  kubeboot token list --output json")]
    List {
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Make a token worthless
    #[command(after_help = "Example:\n  kubeboot token revoke 3f9a1c0b7e")]
    Revoke {
        /// Its id, as `kubeboot token list` has it
        id: String,
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Say what a token is, offline, and where a typing error is
    #[command(after_help = "Examples:\n  \
        kubeboot token inspect < worker.token\n  \
        kubeboot token inspect --token-file worker.token --output json")]
    Inspect {
        /// A file with the token; `-`, which it is if nothing is said, is standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
        /// How to answer
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// Print the seed alone
    #[arg(long)]
    seed: bool,
    /// Take the seed from this file (`-`: standard input) instead of making one
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Where machines on other networks will reach the founder; on its own they find it
    #[arg(long, value_name = "ADDRESS", value_parser = host)]
    join: Option<String>,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t, conflicts_with = "seed")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What it admits
    #[arg(long, value_enum, default_value_t)]
    role: Admits,
    /// How long it is good: a number with s, m, h or d
    #[arg(long, default_value = "24h", value_parser = lifetime)]
    ttl: u64,
    /// How many machines it admits; a control plane's always one, a worker's any number if nothing is said
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    uses: Option<u32>,
    /// How to answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args, there: &There) -> Exit {
    let offline = || there.refuse();
    let (command, output, answer) = match &args.what {
        What::Generate(generate) => {
            ("token generate", generate.output, offline().and_then(|()| self::generate(generate)))
        }
        What::Create(create) => ("token create", create.output, self::create(there, create)),
        What::List { output } => ("token list", *output, list(there, *output)),
        What::Revoke { id, output } => ("token revoke", *output, revoke(there, id, *output)),
        What::Inspect { token_file, output } => {
            ("token inspect", *output, offline().and_then(|()| inspect(token_file, *output)))
        }
    };
    answer::end(command, output, answer.map(|()| Exit::Success))
}

fn generate(args: &Generate) -> Result<(), Stop> {
    let seed = match &args.from {
        None => Seed::new(random::bytes()),
        Some(file) => match read(file)? {
            Token::Seed(seed) => seed,
            Token::Join(join) => {
                let why = format!("expected a seed, found the token of a {}", role_text(join.joiner()));
                return Err(stop(Exit::BadInput, "No tokens were made", why, "give the founder's token."));
            }
        },
    };
    if args.seed {
        return print(&zeroize::Zeroizing::new(format!("{}\n", seed.text().as_str())));
    }
    let set = Set::of(&seed);
    if args.output == Output::Text {
        return print(&set.text(args.join.as_deref(), Paint::Plain));
    }
    let machine = |(role, token): (Role, &str)| {
        let start = tokens::start(role, token, args.join.as_deref());
        let start = json!({
            "token": token,
            "parameters": start.parameters.as_str(),
            "cloud-config": start.cloud_config.as_str(),
        });
        (serde_json::to_value(role).ok().and_then(|role| role.as_str().map(str::to_owned)).unwrap_or_default(), start)
    };
    let mut answer: serde_json::Map<String, Value> = set.each().map(machine).into_iter().collect();
    answer.insert("fingerprint".to_owned(), json!(tokens::inspect(&Token::Seed(seed)).fingerprint));
    print_json(&Value::Object(answer))
}

/// The token in a file.
fn read(file: &Path) -> Result<Token, Stop> {
    let what = "The token can't be read";
    let text = sources::token_file(file);
    let text = text.map_err(|error| stop(Exit::BadInput, what, error, "give a file that holds one token."))?;
    Token::parse(&text).map_err(|error| {
        stop(
            Exit::BadInput,
            what,
            format!("expected a token, found {error}"),
            "compare it with where it was copied from.",
        )
    })
}

fn inspect(file: &Path, output: Output) -> Result<(), Stop> {
    let inspected = tokens::inspect(&read(file)?);
    match output {
        Output::Text => print(&inspected.text()),
        Output::Json => print_json(&json!(inspected)),
    }
}

/// What a control plane says of a token that it put on record.
#[derive(Deserialize)]
struct Kept {
    expires: String,
    join: std::net::IpAddr,
}

/// The token is made here, and its public half alone is sent.
fn create(there: &There, args: &Create) -> Result<(), Stop> {
    let failed = |why: String| stop(Exit::Failure, "No token was made", why, "report this as a bug.");
    let uses = if args.role == Admits::ControlPlane { args.uses.or(Some(1)) } else { args.uses };
    let request = |key| Request::TokenCreate { role: args.role, key: Bytes(key), ttl: args.ttl, uses };
    request(vec![0; 32]).check()?;
    let open = there.open(Needs::Cluster)?;
    let cluster = open.cluster().ok_or_else(|| failed("the cluster is not known".to_owned()))?;
    let identity = Founded::of(cluster).map_err(failed)?.identity_key;
    let token = JoinToken::new(args.role.into(), random::bytes(), &identity);
    let key = token.join_key().public();
    let kept: Kept = open.value(&request(key.to_vec()))?;
    let expires = kept.expires.parse().map(|moment: Moment| moment.unix());
    let expires = expires.map_err(|_| failed("the answer's moment can't be read".to_owned()))?;
    let origin = Origin::Created { by: String::new() };
    made(&token, &TokenRecord { kind: args.role.into(), key, expires, uses_left: uses, origin }, kept.join, args.output)
}

/// The token alone goes to standard output, so that it can be kept in a file; what it is for, to standard error.
fn made(token: &JoinToken, record: &TokenRecord, join: std::net::IpAddr, output: Output) -> Result<(), Stop> {
    let (text, join) = (token.text(), join.to_string());
    if output == Output::Text {
        eprint!("{}", tokens::created(record, &join));
        return print(&zeroize::Zeroizing::new(format!("{}\n", text.as_str())));
    }
    let role = if record.kind == Joiner::Worker { Role::Worker } else { Role::ControlPlane };
    let start = tokens::start(role, &text, Some(&join));
    let inspected = tokens::inspect(&Token::Join(token.clone()));
    print_json(&json!({
        "token": text.as_str(),
        "id": inspected.ids[0],
        "role": inspected.kind,
        "fingerprint": inspected.fingerprint,
        "expires": moment(record.expires),
        "uses": record.uses_left,
        "parameters": start.parameters.as_str(),
        "cloud-config": start.cloud_config.as_str(),
    }))
}

/// The tokens, and what is wrong with objects that can't be read.
#[derive(Deserialize)]
struct All {
    tokens: Vec<tokens::Listed>,
    damaged: Vec<String>,
}

fn list(there: &There, output: Output) -> Result<(), Stop> {
    let All { tokens: rows, damaged } = there.open(Needs::Cluster)?.value(&Request::TokenList {})?;
    for why in damaged {
        eprintln!("kubeboot: {}", crate::words::one_line(&why));
    }
    match output {
        Output::Text => print(&tokens::table(&rows)),
        Output::Json => print_json(&json!(rows)),
    }
}

fn revoke(there: &There, id: &str, output: Output) -> Result<(), Stop> {
    let id = self::id(id).map_err(|(why, fix)| stop(Exit::BadInput, "No token was revoked", why, fix))?;
    let _: Value = there.open(Needs::Cluster)?.value(&Request::TokenRevoke { id: id.to_owned() })?;
    match output {
        Output::Text => {
            print("It admits nobody from now on. Machines that came with it stay: kubeboot token list had them\n")
        }
        Output::Json => print_json(&json!({"revoked": id})),
    }
}

/// A token's id, which may be given as its object's name.
fn id(id: &str) -> Result<&str, (&'static str, &'static str)> {
    let digits = id.strip_prefix("token-").unwrap_or(id);
    if id.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("kb1")) {
        return Err((
            "this is the token itself, and arguments can be seen by everybody on the machine",
            "give its id.",
        ));
    }
    match is_token_id(digits) {
        true => Ok(digits),
        false => Err(("expected an id of ten hexadecimal digits", "take it from: kubeboot token list")),
    }
}

/// An address for `join`.
fn host(text: &str) -> Result<String, String> {
    match is_host(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a host name or an address, with or without a port".to_owned()),
    }
}

/// `90m` and its like, in seconds.
pub(super) fn lifetime(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        _ => 0,
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=LONGEST) => Ok(seconds),
        _ => Err("expected a number with s, m, h or d, such as 24h; at most 366d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_a_unit_and_a_bound() {
        assert_eq!(lifetime("24h"), Ok(DAY));
        assert_eq!((lifetime("90m"), lifetime("1s"), lifetime("366d")), (Ok(5400), Ok(1), Ok(LONGEST)));
        for bad in ["", "h", "24", "0h", "367d", "-1h", "1.5h", "99999999999999999999d", "9999999999999999d", "1ä"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_never_by_itself() {
        assert_eq!(id("3f9a1c0b7e"), Ok("3f9a1c0b7e"));
        assert_eq!(id("token-3f9a1c0b7e"), Ok("3f9a1c0b7e"));
        for bad in ["", "3f9a1c0b7", "3f9a1c0b7g", "../node-w-1", "node-w-1", "3F9A1C0B7E", "kb1w-00000", "KB1W-0"] {
            assert!(id(bad).is_err(), "{bad}");
        }
        assert!(id("KB1w-0").unwrap_err().0.contains("the token itself"));
    }
}
