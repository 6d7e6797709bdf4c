//! The classic builder's door.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use skiff_build::classic::{Line, Request};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::build_error;
use crate::engine::Engine;
use crate::error::Result;

/// Progress of a build. Dropping it cancels the build.
pub type BuildProgress = BoxStream<'static, Result<Line>>;

impl Engine {
    /// Builds an image from a context in one archive.
    pub fn build_image(&self, request: Request, body: Box<dyn AsyncRead + Send + Unpin>) -> BuildProgress {
        // Lines of a build are its output, of which nothing may be lost: a slow client has them wait.
        let (sender, receiver) = mpsc::unbounded_channel();
        let engine = self.clone();
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(
            async move {
                let outcome = engine.build(request, body, sender.clone()).await;
                if let Err(error) = outcome {
                    // A client that has gone is told nothing.
                    let _ = sender.send(Err(error));
                }
            },
            &self.0.runtime,
        );
        stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.recv().await.map(|line| (line, (receiver, task)))
        })
        .boxed()
    }

    async fn build(
        &self,
        request: Request,
        body: Box<dyn AsyncRead + Send + Unpin>,
        sender: mpsc::UnboundedSender<Result<Line>>,
    ) -> Result<()> {
        let solver = self.solver()?;
        let lines = Arc::new(move |line| {
            let _ = sender.send(Ok(line));
        });
        let tags = request.tags.clone();
        let mut request = request;
        if let Some(gateway) = self.0.networks.host_gateway() {
            for host in &mut request.extra_hosts {
                if let Some(name) = host.strip_suffix("host-gateway") {
                    *host = format!("{name}{gateway}");
                }
            }
        }
        let built = skiff_build::classic::build(&solver, request, body, lines).await;
        let Some(id) = built.map_err(|error| build_error(&error))? else { return Ok(()) };
        self.image_built(&id, &tags);
        Ok(())
    }
}
