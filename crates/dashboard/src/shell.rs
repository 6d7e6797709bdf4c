//! A shell in the guest, for a terminal of the page's.

use bytes::Bytes;
use hyper::StatusCode;
use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use serde::Deserialize;
use skiff_host::shell::{TrustTheLink, log_in};
use tokio::sync::mpsc;

use crate::answer::{Code, Refusal};
use crate::stream::Input;
use crate::upstream::{Purpose, Upstream, daemon_away};

/// The measures of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Screen {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// A shell that has begun.
pub(crate) struct Shell {
    session: Handle<TrustTheLink>,
    output: ChannelReadHalf,
    typing: ChannelWriteHalf<Msg>,
}

/// What the shell says.
pub(crate) struct Output {
    output: ChannelReadHalf,
    /// The connection ends with it.
    _session: Handle<TrustTheLink>,
}

/// What it is told.
pub(crate) struct Typing(ChannelWriteHalf<Msg>);

/// Opens a shell, starting the guest if it does not run.
pub(crate) async fn open(upstream: &Upstream, screen: Screen) -> Result<Shell, Refusal> {
    let Upstream::Daemon { paths, .. } = upstream else {
        return Err(Refusal::away(Code::Alone, "an engine alone has no guest to log in to"));
    };
    let client = upstream.control(Purpose::Use).await?;
    let stream = client.shell(|_| {}).await.map_err(daemon_away)?;
    let broken = |error: &dyn std::error::Error| Refusal::away(Code::Engine, error.to_string());
    let session = log_in(paths, stream).await.map_err(|error| broken(&error))?;
    let begin = async {
        let channel = session.channel_open_session().await?;
        channel
            .request_pty(false, "xterm-256color", screen.columns.into(), screen.rows.into(), 0, 0, &[])
            .await?;
        channel.request_shell(false).await?;
        Ok(channel)
    };
    let channel = begin
        .await
        .map_err(|error: russh::Error| Refusal::new(StatusCode::BAD_GATEWAY, error.to_string()))?;
    let (output, typing) = channel.split();
    Ok(Shell { session, output, typing })
}

impl Shell {
    /// Takes its two directions apart.
    pub(crate) fn split(self) -> (Output, Typing) {
        (Output { output: self.output, _session: self.session }, Typing(self.typing))
    }
}

impl Output {
    /// The next bytes; nothing after the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.output.wait().await? {
                ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => return Some(data),
                _ => {}
            }
        }
    }
}

impl Typing {
    /// Passes on what the page says until there is no more of it.
    pub(crate) async fn from(self, mut keys: mpsc::Receiver<Input>) {
        while let Some(said) = keys.recv().await {
            let passed = match said {
                Input::Bytes(bytes) => self.0.data_bytes(bytes).await,
                Input::Resize(Screen { columns, rows }) => {
                    self.0.window_change(columns.into(), rows.into(), 0, 0).await
                }
                Input::Eof => self.0.eof().await,
            };
            if passed.is_err() {
                return;
            }
        }
    }
}
