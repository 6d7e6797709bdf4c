//! System calls without the C library: no `errno` in thread-local storage, no locks, no cancellation points.
//!
//! A clone of a process with several threads may only run code like this, because any lock of the C library may
//! have been held by a thread that does not exist in the clone.
#![expect(unsafe_code, reason = "system calls are made by instruction")]

use std::arch::asm;
use std::ffi::CStr;

/// A positive `errno` value as the kernel returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub i32);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Makes one system call with six argument registers.
///
/// # Safety
/// The arguments must be valid for the call `number`: pointers must be readable or writable as that call's manual
/// page asks, for as long as it says.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn raw(number: i64, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the clobbers are those of the x86-64 system call convention.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack, preserves_flags)
        );
    }
    result
}

/// Makes one system call with six argument registers.
///
/// # Safety
/// The arguments must be valid for the call `number`: pointers must be readable or writable as that call's manual
/// page asks, for as long as it says.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(crate) unsafe fn raw(number: i64, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the registers are those of the AArch64 system call convention.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack, preserves_flags)
        );
    }
    result
}

/// An argument of a system call as it goes into a register.
pub(crate) trait Arg {
    fn register(self) -> usize;
}

macro_rules! integer_args {
    ($($t:ty),*) => { $(impl Arg for $t { fn register(self) -> usize { self as usize } })* };
}
integer_args!(i32, u32, i64, u64, usize);

impl Arg for &CStr {
    fn register(self) -> usize {
        self.as_ptr() as usize
    }
}
impl<T> Arg for *const T {
    fn register(self) -> usize {
        self as usize
    }
}
impl<T> Arg for *mut T {
    fn register(self) -> usize {
        self as usize
    }
}

/// Turns what a system call left in the result register into a value or an error.
pub(crate) fn check(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(Errno((-result) as i32)) } else { Ok(result as usize) }
}

/// Fills the argument registers that a call does not use with zero.
pub(crate) fn pad<const N: usize>(given: [usize; N]) -> [usize; 6] {
    let mut registers = [0; 6];
    for (register, value) in registers.iter_mut().zip(given) {
        *register = value;
    }
    registers
}

/// `call!(SYS_x, a, b…)`: a checked system call; must stand in an unsafe block.
macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        $crate::sys::check($crate::sys::raw(
            $number as i64,
            $crate::sys::pad([$($crate::sys::Arg::register($arg)),*]),
        ))
    };
}
pub(crate) use call;

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}
