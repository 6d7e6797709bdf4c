//! The instruction of classic BPF, of which seccomp filters are made.

/// One classic BPF instruction (`struct sock_filter` of `linux/filter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The constant of the instruction.
    pub value: u32,
}

/// The longest filter the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

#[repr(C)]
pub(crate) struct Filter {
    pub len: u16,
    pub instructions: *const Instruction,
}
