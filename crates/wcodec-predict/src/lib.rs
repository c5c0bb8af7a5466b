//! Tiles, intra prediction and row/column scale classes
