"""The currencies that the ledger accepts, and the number of decimals that Plexy uses for each.

The list is a part of the rules. A code that ISO 4217 withdraws stays in the list, so that no later
release rejects an event that an earlier release folded. Codes that have no minor unit, such as
those for gold and for testing, are not money, so the list leaves them out.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CURRENT: Final = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN
    BWP BYN BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD
    EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR
    IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD
    MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD
    OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE
    SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI
    UYU UYW UZS VED VES VND VUV WST XAD XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
_WITHDRAWN: Final = """
    ADP AFA ALK ANG AOK AON AOR ARA ARP ARY ATS AYM AZM BAD BEC BEF BEL BGJ BGK BGL BGN
    BOP BRB BRC BRE BRN BRR BUK BYB BYR CSD CSJ CSK CUC CYP DDM DEM ECS ECV EEK ESA ESB
    ESP FIM FRF GEK GHC GHP GNE GNS GQE GRD GWE GWP HRD HRK IEP ILP ILR ISJ ITL LAJ LSM
    LTL LTT LUC LUF LUL LVL LVR MGF MLF MRO MTL MTP MVQ MXP MZE MZM NIC NLG PEH PEI PES
    PLZ PTE RHD ROK ROL RUR SDD SDP SIT SKK SLL SRG STD SUR TJR TMM TPE TRL UAK UGS UGW
    USS UYN UYP VEB VEF VNC XEU YDD YUD YUM YUN ZAL ZMK ZRN ZRZ ZWC ZWD ZWL ZWN ZWR
"""
# Plexy multiplies the displayed amount by 100, except in these currencies, which have no minor unit
# at Plexy. ISO 4217 has other numbers of decimals for some currencies: three for KWD, none for ISK,
# and two for MGA.
_WITHOUT_DECIMALS: Final = "JPY KRW VND BIF CLP GNF KMF MGA PYG RWF UGX XAF XOF XPF"

MINOR_UNIT_DIGITS: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(sorted((_CURRENT + _WITHDRAWN).split()), 2)
    | dict.fromkeys(_WITHOUT_DECIMALS.split(), 0)
)
"""The number of decimals of each currency, by ISO 4217 code."""
