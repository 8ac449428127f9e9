//! What sysfs says about a block device that no ioctl does.

use std::fs::{File, read_to_string};
use std::os::unix::fs::MetadataExt;

/// True when the device frees space on request and the freed range reads as zeros.
///
/// Punching a hole into a block device is a write of zeros that may deallocate; the kernel refuses it where the
/// device cannot do that by itself, so both limits must be set.
pub(crate) fn can_punch(device: &File) -> bool {
    let Ok(found) = device.metadata() else {
        return false;
    };
    let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
    let limit = |name: &str| -> u64 {
        // A partition has no queue of its own; its disk is one directory up.
        ["queue", "../queue"]
            .iter()
            .find_map(|queue| read_to_string(format!("/sys/dev/block/{major}:{minor}/{queue}/{name}")).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    limit("discard_max_bytes") > 0 && limit("write_zeroes_max_bytes") > 0
}
