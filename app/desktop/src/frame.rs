//! Where the window was, and whether that place still exists.

use serde::{Deserialize, Serialize};

/// Smallest window that is still of use, in logical pixels.
pub const SMALLEST: (f64, f64) = (640.0, 420.0);
/// A window that was never moved, in logical pixels.
pub const USUAL: (f64, f64) = (1180.0, 760.0);
/// How much of a title bar must be on a screen for a hand to reach it, in pixels.
const GRIP: i32 = 80;

/// A rectangle on the desktop in physical pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// From the left.
    pub x: i32,
    /// From the top.
    pub y: i32,
    /// Wide.
    pub width: u32,
    /// High.
    pub height: u32,
}

impl Frame {
    /// Tells whether the window's upper edge can be reached on one of these screens. Screens come and go between two starts.
    pub fn is_reachable(&self, screens: &[Frame]) -> bool {
        let far = |start: i32, length: u32| start.saturating_add_unsigned(length);
        screens.iter().any(|screen| {
            let left = self.x.max(screen.x);
            let right = far(self.x, self.width).min(far(screen.x, screen.width));
            let is_below_top =
                self.y >= screen.y && self.y < far(screen.y, screen.height).saturating_sub(GRIP / 2);
            right.saturating_sub(left) >= GRIP && is_below_top
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCREENS: [Frame; 2] = [
        Frame { x: 0, y: 0, width: 1920, height: 1080 },
        Frame { x: 1920, y: -200, width: 1280, height: 1024 },
    ];

    fn at(x: i32, y: i32) -> Frame {
        Frame { x, y, width: 900, height: 600 }
    }

    #[test]
    fn a_window_comes_back_where_it_was_unless_nobody_could_reach_it_there() {
        assert!(at(100, 100).is_reachable(&SCREENS));
        assert!(at(2500, -100).is_reachable(&SCREENS), "on the second screen");
        assert!(at(-700, 0).is_reachable(&SCREENS), "half of it is outside");
        assert!(!at(2500, -100).is_reachable(&SCREENS[..1]), "the second screen is gone");
        assert!(!at(-880, 0).is_reachable(&SCREENS));
        assert!(!at(0, -30).is_reachable(&SCREENS), "its title bar is above the screen");
        assert!(!at(0, 1070).is_reachable(&SCREENS));
        assert!(!at(0, 0).is_reachable(&[]));
    }

    proptest! {
        #[test]
        fn no_numbers_overflow(x: i32, y: i32, width: u32, height: u32) {
            let frame = Frame { x, y, width, height };
            let _ = frame.is_reachable(&[frame, SCREENS[0]]);
        }
    }
}
