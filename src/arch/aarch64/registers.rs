//! Vectors that several files of this folder pass to each other.

use core::arch::aarch64::int8x16_t;

/// 32 int8 as two registers.
pub(super) type I8x32 = [int8x16_t; 2];

/// Four rows of 32 quants: vector k has columns 4k..4k + 4 of each row.
pub(super) type PanelRows4 = [int8x16_t; 8];

/// The eight rows of a group.
pub(super) type PanelRows8 = [PanelRows4; 2];
