//! Reversible integer 8x8 DCT-II, ADST and bitplanes
