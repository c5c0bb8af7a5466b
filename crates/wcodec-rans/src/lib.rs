//! 64-lane interleaved rANS for neural-network weights: tables, contexts, superblocks
