"""The ways to show an audit, all made from one document."""
