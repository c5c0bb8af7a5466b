//! Lossless compression of neural-network weights
