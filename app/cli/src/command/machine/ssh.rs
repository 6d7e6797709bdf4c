//! `machine ssh`: a shell in the guest, or one command.

use std::io::Write;

use clap::Args;
use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelWriteHalf, Disconnect};
use skiff_host::shell::TrustTheLink;

use crate::command::Context;
use crate::command::container::session::end_with;
use crate::command::context::{ProgressLine, control_failed};
use crate::error::Error;
use crate::terminal::{self, RawMode, input, signals};

/// Open a shell in the machine, or run a command there
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff machine ssh [OPTIONS] [--] [COMMAND] [ARG...]")]
pub struct Ssh {
    /// Allocate a pseudo-TTY for the command too
    #[arg(short = 't', long)]
    tty: bool,
    /// Command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND", hide = true)]
    words: Vec<String>,
}

fn failed(what: &'static str) -> impl Fn(russh::Error) -> Error {
    move |source| Error::Host { message: what.to_owned(), hint: None, source: Some(Box::new(source)) }
}

async fn connect(context: &Context) -> Result<Handle<TrustTheLink>, Error> {
    let paths = context.paths()?;
    let control = context.daemon().await?;
    let mut line = ProgressLine::new();
    let stream = control.shell(|step| line.show(&step)).await.map_err(control_failed)?;
    line.clear();
    skiff_host::shell::log_in(&paths, stream).await.map_err(|error| Error::Host {
        message: error.to_string(),
        hint: error.hint(),
        source: std::error::Error::source(&error).map(|source| source.to_string().into()),
    })
}

/// Quotes words for the shell that runs them in the guest: SSH carries one string.
fn quoted(words: &[String]) -> String {
    // One word is a command line, as with ssh(1): `machine ssh 'ls | wc'`.
    if let [line] = words {
        return line.clone();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    let words: Vec<String> = words
        .iter()
        .map(|word| match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        })
        .collect();
    words.join(" ")
}

/// Carries `machine ssh` out.
pub async fn run(context: &Context, args: &Ssh) -> Result<(), Error> {
    let session = connect(context).await?;
    let result = shell(&session, args).await;
    let _ = session.disconnect(Disconnect::ByApplication, "", "").await;
    end_with(result?)
}

async fn shell(session: &Handle<TrustTheLink>, args: &Ssh) -> Result<i64, Error> {
    let problem = failed("talking to the machine");
    let channel = session.channel_open_session().await.map_err(&problem)?;
    let tty = args.tty || (args.words.is_empty() && terminal::stdin_is_terminal());
    if tty {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
        channel.request_pty(false, &term, columns.into(), rows.into(), 0, 0, &[]).await.map_err(&problem)?;
    }
    if args.words.is_empty() {
        channel.request_shell(true).await.map_err(&problem)?;
    } else {
        channel.exec(true, quoted(&args.words)).await.map_err(&problem)?;
    }
    let raw_mode = (tty && terminal::stdin_is_terminal()).then(|| RawMode::enter().ok()).flatten();
    let (mut output, writer) = channel.split();
    // Writing waits for the machine to take the bytes. It must not keep us from taking its own: both would wait for
    // ever.
    let feeder = tokio::spawn(feed(writer, tty));
    let mut code = None;
    let mut granted = true;
    // Output may follow the exit status: only the end of the channel is the end.
    while let Some(message) = output.wait().await {
        match message {
            ChannelMsg::Data { data } => write(&mut std::io::stdout().lock(), &data)?,
            ChannelMsg::ExtendedData { data, .. } => write(&mut std::io::stderr().lock(), &data)?,
            ChannelMsg::ExitStatus { exit_status } => code = Some(i64::from(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                code.get_or_insert(128 + signal_number(&signal_name));
            }
            ChannelMsg::Failure => {
                granted = false;
                break;
            }
            _ => {}
        }
    }
    feeder.abort();
    drop(raw_mode);
    if !granted {
        return Err(Error::plain("the machine refused to run the command"));
    }
    code.ok_or_else(|| Error::plain("the connection to the machine was lost"))
}

/// Passes input and changes of the window's size on.
async fn feed(writer: ChannelWriteHalf<Msg>, tty: bool) {
    let mut resizes = signals::resizes();
    let mut input = Some(input::stdin());
    loop {
        let next_input = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            bytes = next_input => match bytes {
                // The machine may have closed its end: its exit code follows.
                Some(bytes) => if writer.data_bytes(bytes).await.is_err() { input = None },
                None => {
                    input = None;
                    let _ = writer.eof().await;
                }
            },
            Some(()) = resizes.recv(), if tty => {
                if let Some((columns, rows)) = terminal::size() {
                    let _ = writer.window_change(columns.into(), rows.into(), 0, 0).await;
                }
            }
            else => return,
        }
    }
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    tokio::task::block_in_place(|| out.write_all(bytes).and_then(|()| out.flush()))
        .map_err(|error| Error::plain(format!("write /dev/stdout: {error}")))
}

fn signal_number(signal: &russh::Sig) -> i64 {
    use russh::Sig;
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        _ => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_guest_s_shell() {
        let words = |list: &[&str]| quoted(&list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["ls | wc"]), "ls | wc");
        assert_eq!(words(&["echo", "a b", "it's", "", "x=1"]), r"echo 'a b' 'it'\''s' '' x=1");
    }
}
