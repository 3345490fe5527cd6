# SPDX-License-Identifier: GPL-2.0
"""make drift: what changed in another kernel's C since the engine was written against it."""
