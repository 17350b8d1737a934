"""Alignment: what people prefer, made into rewards and into models that follow them."""
