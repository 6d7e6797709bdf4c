//! Extended attributes. Ours are not shown, and those that mean something to the host's kernel are the host's alone.

use std::sync::Arc;

use super::Server;
use crate::abi::{Header, In, Reply};
use crate::errno::{Errno, Result};
use crate::host::{Kind, Object};

/// `XATTR_SIZE_MAX`.
const MOST_BYTES: usize = 65_536;

/// Only attributes of users go through.
fn ours_to_pass(name: &[u8]) -> Result<()> {
    if name.len() > crate::abi::MAX_NAME {
        return Err(Errno::RANGE);
    }
    if name.starts_with(b"user.") && !name.starts_with(b"user.skiff.") {
        Ok(())
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

/// Answers with a value, or with its length where the kernel asks for that.
fn sized(value: &[u8], size: usize) -> Result<Reply> {
    if size == 0 {
        let mut reply = Reply::with_capacity(8);
        reply.u32(value.len() as u32).u32(0);
        return Ok(reply);
    }
    if value.len() > size { Err(Errno::RANGE) } else { Ok(Reply::of_bytes(value)) }
}

impl Server {
    fn attributed(&self, header: &Header) -> Result<Arc<Object>> {
        let node = self.nodes.get(header.nodeid)?;
        match node.kind {
            Kind::File | Kind::Directory => self.nodes.object(&node),
            Kind::Symlink | Kind::Other => Err(Errno::PERM),
        }
    }

    pub(super) fn getxattr(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let size = input.u32()? as usize;
        input.skip(4)?;
        let name = input.text()?;
        if ours_to_pass(name).is_err() {
            return Err(if name.starts_with(b"user.") { Errno::NODATA } else { Errno::OPNOTSUPP });
        }
        let object = self
            .attributed(header)
            .map_err(|errno| if errno == Errno::PERM { Errno::NODATA } else { errno })?;
        let mut value = vec![0; MOST_BYTES];
        let length = object.xattr(name, &mut value)?;
        sized(&value[..length], size)
    }

    pub(super) fn setxattr(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let (size, flags) = (input.u32()? as usize, input.u32()?);
        let name = input.text()?;
        ours_to_pass(name)?;
        let value = input.bytes(size)?;
        let node = self.nodes.get(header.nodeid)?;
        let object = self.attributed(header)?;
        self.own_change(&node, || object.set_xattr(name, value, flags))?;
        Ok(Reply::empty())
    }

    pub(super) fn listxattr(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let size = input.u32()? as usize;
        let list = match self.attributed(header) {
            Ok(object) => object.xattrs()?,
            Err(Errno::PERM) => Vec::new(),
            Err(errno) => return Err(errno),
        };
        let mut shown = Vec::with_capacity(list.len());
        for name in list.split(|byte| *byte == 0).filter(|name| ours_to_pass(name).is_ok()) {
            shown.extend_from_slice(name);
            shown.push(0);
        }
        sized(&shown, size)
    }

    pub(super) fn removexattr(&self, header: &Header, mut input: In<'_>) -> Result<Reply> {
        let name = input.text()?;
        ours_to_pass(name)?;
        let node = self.nodes.get(header.nodeid)?;
        let object = self.attributed(header)?;
        self.own_change(&node, || object.remove_xattr(name))?;
        Ok(Reply::empty())
    }
}
