//! The command window of a target's session (RFC 7143 4.2.2.1).

use blockwire_wire::serial;

/// Where a non-immediate CmdSN stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Inside the window, this many commands ahead of the one expected next.
    Ahead(u32),
    /// Below ExpCmdSN or above MaxCmdSN: the command is silently ignored.
    Outside,
}

/// ExpCmdSN and MaxCmdSN. MaxCmdSN counts tasks that ended, so that unfinished tasks are bounded by the window's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandWindow {
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
}

impl CommandWindow {
    /// A window of `size` commands (at least 1) that expects `exp_cmd_sn` first.
    #[must_use]
    pub fn new(exp_cmd_sn: u32, size: u32) -> Self {
        Self { exp_cmd_sn, max_cmd_sn: exp_cmd_sn.wrapping_add(size.max(1)).wrapping_sub(1) }
    }

    #[inline]
    #[must_use]
    pub fn exp_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn
    }

    #[inline]
    #[must_use]
    pub fn max_cmd_sn(&self) -> u32 {
        self.max_cmd_sn
    }

    /// Where `cmd_sn` stands now.
    #[inline]
    #[must_use]
    pub fn position(&self, cmd_sn: u32) -> Position {
        if serial::less_or_equal(self.exp_cmd_sn, cmd_sn) && serial::less_or_equal(cmd_sn, self.max_cmd_sn) {
            Position::Ahead(cmd_sn.wrapping_sub(self.exp_cmd_sn))
        } else {
            Position::Outside
        }
    }

    /// The expected command was delivered (or its number counts as received).
    #[inline]
    pub fn advance(&mut self) {
        debug_assert!(serial::less_or_equal(self.exp_cmd_sn, self.max_cmd_sn));
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
    }

    /// `n` delivered commands ended: as many more may come.
    #[inline]
    pub fn complete(&mut self, n: u32) {
        self.max_cmd_sn = self.max_cmd_sn.wrapping_add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_exp_to_max_inclusive_across_the_wrap() {
        let mut window = CommandWindow::new(0xffff_fffe, 4);
        assert_eq!(window.max_cmd_sn(), 1);
        assert_eq!(window.position(0xffff_fffe), Position::Ahead(0));
        assert_eq!(window.position(1), Position::Ahead(3));
        assert_eq!(window.position(2), Position::Outside);
        assert_eq!(window.position(0xffff_fffd), Position::Outside);
        for _ in 0..4 {
            window.advance();
        }
        // closed: MaxCmdSN is ExpCmdSN - 1, never less
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (2, 1));
        assert_eq!(window.position(2), Position::Outside);
        window.complete(1);
        assert_eq!(window.position(2), Position::Ahead(0));
    }
}
