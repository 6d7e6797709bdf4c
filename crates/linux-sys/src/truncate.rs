//! Changes of files by path alone.
#![expect(unsafe_code, reason = "rustix has no truncate")]

use crate::sys::call;
use std::ffi::CStr;
use std::io;

/// Sets the length of the file at `path` without opening it: `truncate(2)`.
pub fn truncate(path: &CStr, length: u64) -> io::Result<()> {
    // SAFETY: the kernel reads the path up to its NUL, and it lives across the call.
    unsafe { call!(libc::SYS_truncate, path, length) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_truncated_by_path() {
        let path = std::env::temp_dir().join(format!("skiff-truncate-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        truncate(&text, 3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"con");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(truncate(&text, 3).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
