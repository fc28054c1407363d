"""How the processor runs fast: native code built through LLVM, the translator and its code cache."""
