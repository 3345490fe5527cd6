# SPDX-License-Identifier: GPL-2.0
"""What the judges reach of the code they compare: C's by gcov, the engine's by LLVM's coverage."""
