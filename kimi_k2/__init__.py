"""Kimi K2 and DeepSeek-V3: the model alone, without processes or network."""
