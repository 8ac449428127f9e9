//! The stores. Each is opened through [`crate::open`].

mod backing;
mod blockdev;
mod file;
mod file_io;
mod null;
mod ram;
mod uring;

pub(crate) use file::open as open_file;
pub(crate) use null::open as open_null;
pub(crate) use ram::open as open_ram;
