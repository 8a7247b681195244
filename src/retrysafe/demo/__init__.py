"""`retrysafe demo`: one small shop, once bare and once behind `retrysafe serve`, and a client that loses answers.

Reading order: `shop` is an ordinary application, `plan` is what is ordered and what goes wrong,
`client` sends it, `tally` reads the shop's own tables, `processes` starts and ends what runs,
`report` prints, `comparison` puts them together.
"""

from retrysafe.demo.comparison import run

__all__ = ["run"]
