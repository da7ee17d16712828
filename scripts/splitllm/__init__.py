# SPDX-License-Identifier: GPL-2.0-only
"""What the project's scripts share. Each script beside this package is a command; its --help says what it does."""
