//! `resize` of a container's terminal.

use rustix::termios::{Winsize, tcsetwinsize};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::TerminalSize;

impl Engine {
    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// When the container does not run or has no terminal.
    pub async fn resize_container(&self, id: &str, size: TerminalSize) -> Result<()> {
        let container = self.container(id)?;
        container.process()?;
        let Some(master) = container.run().as_ref().and_then(|run| run.master.clone()) else {
            return Ok(());
        };
        resize(&*master, size)?;
        let attributes = [("height", size.height.to_string()), ("width", size.width.to_string())];
        let attributes = attributes.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.container_event(&container.record(), "resize", &attributes);
        Ok(())
    }
}

pub(crate) fn resize(master: impl std::os::fd::AsFd, size: TerminalSize) -> Result<()> {
    let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size)
        .map_err(|errno| Error::internal("resize the terminal", &std::io::Error::from(errno)))
}
